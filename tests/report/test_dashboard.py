"""The workspace and report that would be sent to W&B, checked without it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("wandb_workspaces")

from diffprobe.errors import UserError
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.probes.summaries import summarise
from diffprobe.report import dashboard
from diffprobe.report.dashboard import (
    Curves,
    curves_of_run,
    default_curves,
    main,
    make_report,
    make_workspace,
    outline,
    save,
    specification,
    verdict_of_run,
)

COMMITTED = Path(__file__).with_name("workspace.json")  # written by: DASHBOARD=1 pytest tests/report/test_dashboard.py
REPORT = """ step  depth
 1      0.5

depth
- By step 2 of 3 the probe on up 3.1 reaches 95 % of its final depth score, rank correlation 0.80
[0.77, 0.83].
- At step 3 depth is above both controls.
all of them
- Paired on the same images, depth emerges before shape, by 2 steps [1, 3].
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of two properties, one of which is scored by an error, with one control."""
    moments = [(step, 900.0) for step in range(3)]
    blocks = [
        ScoreBlock("pocket", "a", name, "linear", control, "test", metric, moments, ["x"], np.full((3, 1), 0.5))
        for name, metric in (("depth", "spearman"), ("normals", "mean_angle"))
        for control in ("none", "fresh")
    ]
    folder = tmp_path / "probing" / "first"
    folder.mkdir(parents=True)
    summarise(score_table(blocks)).to_csv(folder / "summary.csv", index=False)
    (folder / "report.txt").write_text(REPORT)
    return folder


def keys_of(specified: object) -> set[str]:
    """All texts in a specification."""
    if isinstance(specified, dict):
        return set().union(*map(keys_of, specified.values()), set())
    if isinstance(specified, list):
        return set().union(*map(keys_of, specified), set())
    return {specified} if isinstance(specified, str) else set()


def test_the_workspace_is_the_committed_one() -> None:
    found = specification(make_workspace("team", "project", default_curves()))
    if os.environ.get("DASHBOARD"):
        COMMITTED.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(COMMITTED.read_text())


def test_its_panels_show_what_runs_log() -> None:
    found = keys_of(specification(make_workspace("team", "project", default_curves())))
    for name, metric in (("saliency", "dice"), ("depth", "spearman"), ("shading", "spearman")):
        assert {f"{name}/{metric}/{curve}" for curve in ("best", "best_low", "headline", "permuted")} <= found
        assert f"figures/layers_{name}" in found
    assert {"denoising_step", "predictions/saliency", "figures/separation"} <= found
    assert any("tables/summary" in each for each in found)
    assert "probe.name" in found


def test_of_a_run_they_are_of_its_properties_scores_and_controls(run: Path) -> None:
    assert curves_of_run(run) == [
        Curves("depth", "spearman", ("best", "headline", "fresh")),
        Curves("normals", "mean_angle", ("best", "headline", "fresh")),
    ]


def test_the_verdict_is_that_of_the_run_without_its_headings(run: Path) -> None:
    assert verdict_of_run(run) == [
        "By step 2 of 3 the probe on up 3.1 reaches 95 % of its final depth score, rank correlation 0.80 [0.77, 0.83].",
        "At step 3 depth is above both controls.",
        "Paired on the same images, depth emerges before shape, by 2 steps [1, 3].",
    ]
    report = specification(make_report("team", "project", curves_of_run(run), run))
    assert report["displayName"] == "diffprobe: probing/first"
    assert set(verdict_of_run(run)) <= keys_of(report)
    assert "normals/mean_angle/fresh" in keys_of(report)


def test_a_run_of_objects_has_their_panels(tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("- scsi < scdi.\n")
    assert curves_of_run(tmp_path) == []
    found = keys_of(specification(make_report("team", "project", [], tmp_path)))
    assert dashboard.OBJECTS in found


def test_nothing_is_called_without_save(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def called(*arguments: object, **options: object) -> None:
        raise AssertionError("W&B was called")

    monkeypatch.setattr(wandb, "Api", called)
    assert main(["team/project", "--run", str(run), "--out", str(tmp_path / "spec.json")]) == 0
    workspace, report = json.loads((tmp_path / "spec.json").read_text())
    assert (workspace["entity"], report["project"]["name"]) == ("team", "project")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["depth", "  LinePlot: depth: spearman over steps"]
    assert lines[:-1] == outline(make_workspace("team", "project", curves_of_run(run)))


def test_save_sends_both_and_prints_their_addresses(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = []

    def take(made: object) -> str:
        sent.append(type(made).__name__)
        return f"https://there/{len(sent)}"

    monkeypatch.setattr(dashboard, "save", take)
    assert main(["team/project", "--run", str(run), "--save"]) == 0
    assert sent == ["Workspace", "Report"]
    assert capsys.readouterr().out.endswith("https://there/1\nhttps://there/2\n")


def test_a_refusal_of_wandb_is_one_line() -> None:
    class Refused:
        def save(self) -> None:
            raise ValueError("permission\ndenied")

    with pytest.raises(UserError, match=r"W&B did not take it: permission denied.*wandb login"):
        save(Refused())


@pytest.mark.parametrize("project", ["project", "a/b/c", "/b", "a/"])
def test_a_project_needs_its_entity(project: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([project])
    assert "give ENTITY/PROJECT" in capsys.readouterr().err


def test_a_folder_without_a_run_and_a_missing_package_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["team/project", "--run", str(tmp_path)]) == 1
    assert "holds no finished run" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["team/project"]) == 1
    assert "pip install -e '.[dashboard]'" in capsys.readouterr().err

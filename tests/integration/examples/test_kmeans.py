"""An analysis from outside the package, by one file and one YAML file, is run like those inside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.commands import command, one_line

FOLDER = Path(__file__).parent / "kmeans"


def kmeans(*overrides: str, cwd: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)  # as PYTHONPATH does
    given = [
        *(f"hydra.searchpath=[file://{FOLDER / 'conf'}]", "analysis=kmeans", "objects.count=6", "logger=csv"),
        *("layers.select=[up_blocks.1.resnets.0]", "steps=last", f"hydra.run.dir={cwd / 'run'}"),
    ]
    return command("analyze.py", *given, *overrides, cwd=cwd)


@pytest.mark.slow
def test_an_analysis_from_outside_leaves_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = kmeans(cwd=tmp_path, monkeypatch=monkeypatch)
    assert not done.returncode, done.stderr
    run = tmp_path / "run"
    scores = pd.read_csv(run / "iou.csv")
    assert set(scores.control) == {"tokens", "positions"}
    assert scores.iou.between(0, 1).all()
    assert scores.image.nunique() == 6
    assert "mean IoU with objects" in (run / "report.txt").read_text()
    assert "k-means of tokens" in (run / "report.html").read_text()
    assert "hydra.searchpath" in (run / "report.html").read_text()
    assert (run / "figures" / "iou.png").is_file()
    assert json.loads((run / "environment.json").read_text())["network_evaluations"] == 6


@pytest.mark.slow
def test_its_settings_are_held_against_its_own_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = kmeans("analysis.clusters=1", cwd=tmp_path, monkeypatch=monkeypatch)
    assert one_line(done).startswith("error: analysis.clusters=1: must be at least 2")
    done = kmeans("+analysis.cluster=3", cwd=tmp_path, monkeypatch=monkeypatch)
    assert "the nearest valid key is 'analysis.clusters'" in one_line(done)


def test_each_cluster_is_matched_to_one_object_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    from kmeans_segmentation import matched_iou

    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 2]])
    masks = np.array([[[1, 1, 0, 0], [1, 1, 0, 0]], [[1, 1, 1, 0], [1, 1, 0, 0]]], bool)
    # The first object is cluster 0 exactly; the second, which overlaps with it most, has what is left: 1 of 8 with 1.
    np.testing.assert_allclose(matched_iou(labels, masks, 3), [1, 1 / 7])

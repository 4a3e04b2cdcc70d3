"""`analysis=intervention` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.commands import command
from tests.tasks import refusal

SMALL = (
    "analysis=intervention",
    "analysis.count=2",
    "analysis.frames=2",
    "data.count=6",
    "steps.sampling=2",
    "steps.select=[0]",
    "layers.select=[up_blocks.3.resnets.2]",
    "report.examples=1",
    "logger=csv",
)


@pytest.mark.slow
def test_a_run_leaves_tables_figures_an_animation_and_its_probes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = (*SMALL, "analysis.methods=[pattern,gradient]", f"hydra.run.dir={run}")
    done = command("analyze.py", *arguments, cwd=tmp_path, blank_figures=True)
    assert done.returncode == 0, done.stderr
    assert "Dice with the target" in done.stdout
    assert set(pd.read_csv(run / "scores.csv")["control"]) == {"none", "random", "unedited"}
    assert set(pd.read_csv(run / "summary.csv")["metric"]) == {
        "dice", "dice_source", "pixels", "pixels_outside", "prompt",
    }  # fmt: skip
    assert set(pd.read_csv(run / "gains.csv")["n"]) == {2}
    for name in ("intervention_scores.png", "intervention_examples.pdf", "intervention.gif"):
        assert (run / "figures" / name).stat().st_size > 0
    assert (run / "probes" / "saliency.safetensors").is_file()
    assert "Intervening in pocket" in (run / "report.html").read_text()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["network_evaluations"] == 6 * 2 + 2 * 2 * (1 + 2 * 2) + 2 * 2
    again = command("analyze.py", *arguments, cwd=tmp_path)
    assert "skipped, since it is finished" in again.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("analysis.target=file", "analysis.mask"),
        ("analysis.target=shear", "choose one of translation"),
        ("analysis.methods=[magic]", "no method 'magic'"),
        ("analysis.range=[3]", "a smallest and a largest"),
        ("analysis.range=[100,200]", "translation of maps of 64 pixels=100: must be at least 0 and at most 64"),
        ("analysis.range=[11.2,11.4]", "gives no whole number of pixels"),
        ("analysis.mask=x.png", "is of analysis.target=file"),
        ("property=all", "one property at a time"),
        ("analysis.probes=nowhere", "no finished run"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_any_work(argument: str, message: str) -> None:
    assert message in refusal(*SMALL, argument)

"""`python analyze.py analysis=shortcuts` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from diffprobe.analyses.shortcuts.analysis import checked_classifier
from diffprobe.analyses.shortcuts.ways import DEEP, GUIDANCE_OFF, WAYS
from diffprobe.labels.pocket import PocketClassifier
from tests.commands import command, overrides, train
from tests.tasks import checked_analysis, refusal

SMALL = ("steps.sampling=3", "steps.select=all", "report.examples=1", "logger=csv")


def shortcuts(*arguments: str, folder: Path):
    given = ("analysis=shortcuts", *SMALL, *arguments, f"hydra.run.dir={folder}")
    return command("analyze.py", *given, cwd=folder.parent, blank_figures=True)


@pytest.mark.slow
def test_a_run_leaves_tables_figures_and_sentences(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = shortcuts("data.count=8", "analysis.shortcuts=[guidance_off,deep_features]", folder=run)
    assert done.returncode == 0, done.stderr
    tested = 3  # of 8 images
    assert f"{tested} test images are made once more" in done.stdout
    rests = (3 + 2 + 1) + (2 + 1)  # after 0, 1 and 2 full steps
    assert f"{tested * (3 + rests)} network evaluations" in done.stdout
    assert json.loads((run / "environment.json").read_text())["network_evaluations"] == 8 * 3 + tested * (3 + rests)
    assert set(pd.read_csv(run / "agreement.csv")["shortcut"]) == {GUIDANCE_OFF, DEEP, "unrelated"}
    fixed = pd.read_csv(run / "fixed.csv")
    assert set(fixed["shortcut"]) == {"any", GUIDANCE_OFF, DEEP}
    assert fixed["fixed"].max() <= 3
    assert fixed["fixed_low"].isna().all()
    said = " ".join((run / "report.txt").read_text().split())
    assert "3 images are too few to say whether this is before or after" in said
    assert len(pd.read_csv(run / "seconds.csv")) == len(pd.read_csv(run / "costs.csv")) == 4 + 3
    assert {path.name for path in (run / "figures").glob("*.png")} == {
        "shortcuts.png", "shortcuts_over_steps.png", "shortcut_example_1.png",
    }  # fmt: skip
    assert (run / "probes" / "saliency.safetensors").is_file()
    assert "deep features reused" in (run / "report.html").read_text()


@pytest.mark.slow
def test_the_probes_of_a_finished_run_are_set_beside_pictures_that_they_have_not_seen(tmp_path: Path) -> None:
    trained, run = tmp_path / "trained", tmp_path / "run"
    given = ("model=pocket", "layers=headline", "probe=ridge", "control=none", "data.count=8", "property=depth", *SMALL)
    assert train(*given, f"hydra.run.dir={trained}", cwd=tmp_path).returncode == 0
    done = shortcuts("data.count=10", f"analysis.probes={trained}", "analysis.shortcuts=[half_the_steps]", folder=run)
    assert done.returncode == 0, done.stderr
    fixed, images = pd.read_csv(run / "fixed.csv"), pd.read_csv(run / "agreement_per_image.csv")["image"]
    assert set(fixed["property"]) == {"depth"}
    assert {"scene_0000008_seed_8", "scene_0000009_seed_9"} < set(images)
    assert images.nunique() < 10


def test_what_cannot_be_done_is_said_before_any_work(material: Path, tmp_path: Path) -> None:
    given = ("analysis=shortcuts", *SMALL)
    assert "trajectory=generation" in refusal(*given, "trajectory=noised")
    assert "no shortcut 'magic'" in refusal(*given, "analysis.shortcuts=[magic]")
    assert "analysis.tolerance" in refusal(*given, "analysis.tolerance=1")
    assert "needs torchvision" in refusal(*given, "analysis.lpips=true")
    assert "no finished run" in refusal(*given, "analysis.probes=nowhere")
    assert "has none that pocket could take" in refusal(*given, "model.guidance=1", "analysis.shortcuts=[guidance_off]")
    files = [
        item for item in overrides(material, tmp_path / "run") if not item.startswith(("hydra", "steps", "probe="))
    ]
    assert "guidance_off_after_0" in refusal(*given, *files, "data.count=6", "data.fractions=[0.2,0.2,0.6]")


def test_what_is_left_out_is_told_in_the_plan() -> None:
    analysis, task = checked_analysis(
        "analysis=shortcuts", *SMALL, "model.scheduler=ddim", "data.count=10", "model.guidance=1"
    )
    lines = analysis.plan(task).summary
    assert [line.partition(" is left out")[0] for line in lines[1:-1]] == [
        "guidance off", "half the steps", "a third of the steps",
    ]  # fmt: skip
    assert task.ways == [DEEP, *WAYS[4:]]


def test_classes_are_left_out_where_the_classifier_does_not_know_pictures_of_that_size() -> None:
    def found(image_size: int) -> tuple[bool, list[str]]:
        inputs: Any = SimpleNamespace(classifier=PocketClassifier(), backbone=SimpleNamespace(image_size=image_size))
        classifier, lines = checked_classifier(inputs)
        return classifier is not None, lines

    assert found(64) == (True, [])
    there, (line,) = found(512)
    assert not there
    assert line.startswith("classes are left out: classifier=pocket knows 64-pixel pictures")

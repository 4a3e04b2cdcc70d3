"""`python analyze.py analysis=emergence` as a person runs it."""

from __future__ import annotations

import json

import pytest

from diffprobe.analyses.emergence.tables import Lead
from diffprobe.probes.score_table import read_scores
from tests.commands import command, overrides, train
from tests.reference.score_rows import rows_of
from tests.rows import read_rows
from tests.tasks import refusal

SMALL = ["features.batch_size=4", "steps.sampling=2", "report.examples=1", "logger=csv"]


def emergence(*arguments, folder):
    arguments = ("analysis=emergence", *SMALL, *arguments, f"hydra.run.dir={folder}")
    return command("analyze.py", *arguments, cwd=folder.parent, blank_figures=True)


@pytest.mark.slow
def test_probes_are_trained_and_held_against_the_image_model(tmp_path):
    runs = tmp_path / "run"
    done = emergence("data.count=8", "analysis.fractions=[0.95,0.5]", folder=runs)
    assert done.returncode == 0, done.stderr
    assert "16 network evaluations" in done.stdout
    scores = rows_of(read_scores(runs))
    assert {row.control for row in scores} == {"none", "image_model"}
    tested = {control: {(row.image, row.step) for row in scores if (row.control, row.split) == (control, "test")}
              for control in ("none", "image_model")}  # fmt: skip
    assert tested["none"] == tested["image_model"]
    leads = read_rows(runs / "leads.csv", Lead)
    assert [(row.property, row.definition, row.fraction) for row in leads] == [
        (name, definition, fraction)
        for name in ("saliency", "depth", "shading")
        for definition in ("own", "common")
        for fraction in (0.95, 0.5)
    ]
    assert "saliency: image model" in (runs / "report.html").read_text()
    assert {path.name for path in (runs / "figures").glob("*.png")} == {
        "emergence.png", "example_1.png", "example_1_all_steps.png",
    }  # fmt: skip
    assert json.loads((runs / "environment.json").read_text())["network_evaluations"] == 16
    for name in ("saliency", "depth", "shading"):
        assert f"- {name}: " in (runs / "report.txt").read_text()
    assert "skipped" in emergence("data.count=8", "analysis.fractions=[0.95,0.5]", folder=runs).stdout


@pytest.mark.slow
def test_the_probes_of_a_finished_run_are_tested_on_images_that_they_have_not_seen(tmp_path):
    trained, runs = tmp_path / "trained", tmp_path / "run"
    given = ["model=pocket", "layers=headline", "probe=ridge", "control=none", "data.count=8", *SMALL]
    done = train(*given, f"hydra.run.dir={trained}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = emergence("data.count=10", f"analysis.probes={trained}", folder=runs)
    assert done.returncode == 0, done.stderr
    there, here = rows_of(read_scores(trained)), rows_of(read_scores(runs))
    assert [row for row in here if row.split == "validation"] == [row for row in there if row.split == "validation"]
    tested = {row.image for row in there if row.split == "test"}
    assert {row.image for row in here if row.split == "test"} == tested | {
        f"scene_{number:07d}_seed_{number}" for number in (8, 9)
    }
    other = ("analysis=emergence", *SMALL, "steps.sampling=3", f"analysis.probes={trained}")
    assert "steps.sampling is 2 there, 3 here" in refusal(*other)
    again = {_key(row): row.value for row in here if row.control == "none" and row.image in tested}
    assert again == pytest.approx({_key(row): row.value for row in there if row.split == "test"}, rel=1e-3)


def _key(row):
    return row.layer, row.step, row.property, row.image, row.metric


def test_what_cannot_be_done_is_said_before_any_work(material, tmp_path):
    given = ["analysis=emergence", *SMALL]
    arguments = [item for item in overrides(material, tmp_path / "run") if not item.startswith("hydra")]
    assert "prompt_100_seed_50_step_0" in refusal(*given, *arguments, "data.fractions=[0.2,0.2,0.6]")
    assert "trajectory=generation" in refusal(*given, "trajectory=noised")
    assert "features=none" in refusal(*given, "features=none")
    assert "no finished run" in refusal(*given, "analysis.probes=nowhere")

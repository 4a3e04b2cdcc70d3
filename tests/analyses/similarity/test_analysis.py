"""`python analyze.py analysis=similarity` as a person runs it."""

from __future__ import annotations

import json
from unittest.mock import patch

import pandas as pd
import pytest

from diffprobe.analyses.similarity import kept_tokens
from diffprobe.analyses.similarity.findings import CkaPair
from diffprobe.analyses.similarity.transfer import Transfer
from diffprobe.probes.score_table import read_scores, select
from tests.commands import command
from tests.rows import read_rows
from tests.tasks import checked_analysis, refusal

LAYERS = "layers.select=[up_blocks.2.resnets.0,up_blocks.3.resnets.0]"
SMALL = ["steps.sampling=3", "steps.select=[0,2]", "property=depth", LAYERS, "data.count=20", "logger=csv"]


def similarity(*arguments, folder):
    arguments = ("analysis=similarity", *SMALL, *arguments, f"hydra.run.dir={folder}")
    return command("analyze.py", *arguments, cwd=folder.parent, blank_figures=True)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """A run that keeps no activation."""
    folder = tmp_path_factory.mktemp("streamed") / "run"
    done = similarity(folder=folder)
    assert done.returncode == 0, done.stderr
    return done, folder


@pytest.mark.slow
def test_it_tells_both_matrices_and_evaluates_every_image_once(streamed):
    done, folder = streamed
    assert "CKA of 4 layers and steps over 7 test images, of at most 16 tokens each" in done.stdout
    assert json.loads((folder / "environment.json").read_text())["network_evaluations"] == 20 * 3
    pairs, rows = read_rows(folder / "cka.csv", CkaPair), read_rows(folder / "transfer.csv", Transfer)
    assert len(pairs) == 4 * 3 / 2
    assert {row.n for row in pairs} == {7}
    assert all(row.low is not None for row in pairs)
    assert {(row.step, row.tested_step) for row in rows} == {(0, 0), (0, 2), (2, 0), (2, 2)}
    text = (folder / "report.txt").read_text()
    assert "- Neighbouring steps of a layer have a mean CKA of " in text
    assert "- depth: at step 3 the probe of step 1 on " in text
    page = (folder / "report.html").read_text()
    assert "CKA with step 3 of the layer" in page
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {
        "cka",
        "transfer_depth",
        "transfer_depth_scores",
    }
    assert (folder / "probes" / "depth.safetensors").is_file()
    keys = pd.read_csv(folder / "curves.csv").columns
    assert {"cka/up_blocks.2.resnets.0", "transfer/depth/up_blocks.3.resnets.0_low"} <= set(keys)
    assert {path.name for path in folder.parent.iterdir()} == {"run"}  # no store


@pytest.mark.slow
def test_a_probe_at_its_own_step_has_its_own_score(streamed):
    _, folder = streamed
    scores = select(read_scores(folder), split="test", control="none", metric="spearman")
    for row in read_rows(folder / "transfer.csv", Transfer):
        if row.step == row.tested_step:
            own = select(scores, layer=row.layer, step=row.step)["value"].mean()
            assert (row.mean, row.native) == pytest.approx((own, own), abs=1e-6)
            assert row.share in (None, pytest.approx(1))  # none of a score that is not shown to be above 0
        floor = select(read_scores(folder), split="test", control="position", metric="spearman")["value"].mean()
        assert row.floor == pytest.approx(floor)


@pytest.mark.slow
def test_stored_activations_say_the_same(streamed, tmp_path):
    done = similarity("features=memory", "features.dtype=float32", "report.examples=1", folder=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    for name, keys in (
        ("cka", ["layer", "step", "other_layer", "other_step"]),
        ("transfer", ["layer", "step", "tested_step"]),
    ):
        ours, theirs = (
            pd.read_csv(folder / f"{name}.csv").set_index(keys).sort_index()
            for folder in (tmp_path / "run", streamed[1])
        )
        pd.testing.assert_frame_equal(ours, theirs, atol=2e-3, rtol=0)

    assert (tmp_path / "run" / "figures" / "example_1.png").is_file()
    assert "depth: probe" in (tmp_path / "run" / "report.html").read_text()


def test_what_cannot_be_done_is_said_before_any_work():
    given = ["analysis=similarity", *SMALL]
    assert "choose control=position" in refusal(*given, "control=none")
    assert "at least two layers or two steps" in refusal(
        *given, "layers=headline", "layers.select=mid_block", "steps.select=0"
    )
    assert "analysis.tokens" in refusal(*given, "analysis.tokens=0")
    with patch.object(kept_tokens.psutil, "virtual_memory") as free:
        free.return_value.available = 10_000_000
        assert "CKA: tokens of test images" in refusal(*given, "analysis.tokens=256")


def test_the_plan_tells_what_is_kept():
    analysis, task = checked_analysis("analysis=similarity", *SMALL)
    plan = analysis.plan(task)
    assert plan.summary[-1].startswith("CKA of 4 layers and steps over 7 test images, of at most 16 tokens each: ")
    assert plan.summary[-1].endswith("B of tokens and sums at most")

"""Sweeps as a person runs them: on three launchers, interrupted, run again, searched, and gathered into one report."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from diffprobe.activations.store.folder import open_store
from diffprobe.cli.running import objective
from diffprobe.probes.score_table import read_scores
from diffprobe.probes.summaries import read_summary, summary_rows
from diffprobe.runs.folder import FINISHED
from diffprobe.threads import usable_cores
from tests.commands import IMAGES, command, command_apart, one_line, overrides, train
from tests.reference.score_rows import Score, rows_of

pytestmark = pytest.mark.slow

LAYERS = [
    f"{block}.transformer_blocks.0.attn1.to_out.0" for block in ("mid_block.attentions.0", "up_blocks.3.attentions.0")
]
KEPT = [f"features.layers=[{','.join(LAYERS)}]", "features.steps=all"]
SWEEP = [f"layers.select={','.join(LAYERS)}", "steps.select=0,1", "control=both"]


def arguments(material: Path, sweep: Path) -> list[str]:
    plain = [
        item for item in overrides(material, sweep) if not item.startswith(("hydra.run.dir", "report.", "layers="))
    ]
    return [*plain, f"hydra.sweep.dir={sweep}", "features=disk", "logger=csv", "report.examples=0", "property=depth"]


def gather(sweep: Path) -> CompletedProcess:
    return command("analyze.py", f"gather={sweep}", cwd=sweep.parent, blank_figures=True)


def environment(job: Path) -> dict:
    return json.loads((job / FINISHED).read_text())


def keyed(scores: list[Score]) -> dict[tuple, float | None]:
    return {
        (
            row.model,
            row.layer,
            row.step,
            row.timestep,
            row.property,
            row.probe,
            row.control,
            row.split,
            row.image,
            row.metric,
        ): row.value
        for row in scores
    }


@pytest.fixture(scope="module")
def swept(material, tmp_path_factory) -> Path:
    """The working directory in which a sweep over two layers and two steps has run."""
    folder = tmp_path_factory.mktemp("swept")
    done = train("-m", *arguments(material, folder / "sweep"), *SWEEP, *KEPT, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_jobs_share_one_store_and_the_network_runs_once(swept):
    assert len(list((swept / "stores").iterdir())) == 2  # the network's, and that of the permuted one
    once = IMAGES * 2
    assert [environment(swept / "sweep" / job)["network_evaluations"] for job in "0123"] == [2 * once, 0, 0, 0]


def test_a_gathered_sweep_is_the_run_over_all_of_it(material, swept):
    whole = [*arguments(material, swept / "sweep"), f"layers.select=[{','.join(LAYERS)}]", "control=both"]
    done = train(*whole, f"hydra.run.dir={swept / 'whole'}", cwd=swept)
    assert done.returncode == 0, done.stderr
    told = gather(swept / "sweep")
    assert told.returncode == 0, told.stderr
    assert "gathered 4 jobs" in told.stdout
    gathered = swept / "sweep" / "gathered"
    ours, theirs = (keyed(rows_of(read_scores(folder))) for folder in (gathered, swept / "whole"))
    assert ours.keys() == theirs.keys()
    assert ours == pytest.approx(theirs, abs=1e-5)
    ours, theirs = (
        {tuple(vars_of(row))[:9]: vars_of(row)[9:] for row in summary_rows(read_summary(folder / "summary.csv"))}
        for folder in (gathered, swept / "whole")
    )
    assert ours.keys() == theirs.keys()
    for key, numbers in ours.items():
        assert numbers == pytest.approx(theirs[key], abs=1e-5)
    page = (gathered / "report.html").read_text()
    assert "job 3" in page
    assert "control=both" in page
    figures = {path.name for path in (gathered / "figures").glob("*.png")}
    assert {"scores_over_steps.png", "layers_depth.png"} <= figures
    assert figures == {path.name for path in (swept / "whole" / "figures").glob("*.png")}


def vars_of(row) -> list:
    return [getattr(row, name) for name in row.__slots__]


def test_run_again_finished_jobs_are_skipped_and_the_others_made(material, swept):
    sweep = swept / "sweep"
    before = {job: (sweep / job / "scores.parquet").stat().st_mtime_ns for job in "0123"}
    (sweep / "2" / FINISHED).unlink()
    done = train("-m", *arguments(material, sweep), *SWEEP, *KEPT, cwd=swept)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped, since it is finished") == 3
    changed = [job for job in "0123" if (sweep / job / "scores.parquet").stat().st_mtime_ns != before[job]]
    assert changed == ["2"]
    assert (sweep / "2" / FINISHED).exists()


def test_another_configuration_in_the_same_folder_is_refused_and_overwrites_nothing(material, swept):
    configuration = swept / "sweep" / "0" / ".hydra" / "config.yaml"
    before = configuration.read_text()
    done = train("-m", *arguments(material, swept / "sweep"), "probe.epochs=3", *SWEEP, *KEPT, cwd=swept)
    assert "probe.epochs is 4 there, 3 here" in one_line(done)
    assert done.stderr.count("failed: ") == 4  # each job says so at once
    assert configuration.read_text() == before


def test_a_failing_job_is_named_and_the_others_go_on(material, tmp_path):
    done = train(
        "-m",
        *arguments(material, tmp_path / "sweep"),
        "steps.select=9,1",
        "layers=headline",
        "control=none",
        cwd=tmp_path,
    )
    assert "steps.select=9: choose from 0 to 1" in one_line(done)
    assert "job 0 failed: " in done.stderr
    assert not (tmp_path / "sweep" / "0" / FINISHED).exists()
    assert (tmp_path / "sweep" / "1" / FINISHED).exists()
    told = gather(tmp_path / "sweep")
    assert "gathered 1 jobs" in told.stdout


def test_seeds_are_told_one_by_one_and_side_by_side(material, tmp_path):
    done = train(
        "-m", *arguments(material, tmp_path / "sweep"), "seed=0,1", "layers=headline", "control=none", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = gather(tmp_path / "sweep")
    assert told.returncode == 0, told.stderr
    gathered = tmp_path / "sweep" / "gathered"
    for seed in "01":
        assert rows_of(read_scores(gathered / f"seed={seed}")) == rows_of(read_scores(tmp_path / "sweep" / seed))
        assert summary_rows(read_summary(gathered / f"seed={seed}" / "summary.csv")) == summary_rows(
            read_summary(tmp_path / "sweep" / seed / "summary.csv")
        )
    assert [line.split(",")[0] for line in (gathered / "groups.csv").read_text().splitlines()] == [
        "group",
        "seed=0",
        "seed=1",
    ]
    assert "mean (lowest, highest)" in told.stdout


@pytest.mark.programs
def test_jobs_that_start_together_fill_the_store_once(material, tmp_path):
    sweep = ["-m", *arguments(material, tmp_path / "sweep"), *SWEEP[:1], "control=none", *KEPT]
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = command_apart("train.py", *sweep, *joblib, cwd=tmp_path, threads=None)
    assert done.returncode == 0, done.stderr
    jobs = [environment(tmp_path / "sweep" / job) for job in "01"]
    assert sorted(job["network_evaluations"] for job in jobs) == [0, IMAGES * 2]
    (store,) = (tmp_path / "stores").iterdir()
    assert not open_store(store).verify().unfinished
    assert {job["hardware"]["torch_threads"] for job in jobs} == {max(1, usable_cores() // 2)}


def test_a_search_maximises_validation_scores(material, tmp_path):
    search = [*arguments(material, tmp_path / "sweep"), "experiment=learning_rate_search", "hydra.sweeper.n_trials=2"]
    done = train("-m", *search, "steps.select=[1]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    values = [objective(read_summary(tmp_path / "sweep" / job / "summary.csv")) for job in "01"]
    assert found["best_value"] == pytest.approx(max(values))
    assert 1e-4 <= found["best_params"]["probe.learning_rates.depth"] <= 1e-1

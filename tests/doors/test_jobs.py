"""Which run folders are finished, what a search maximises, and how the tables of jobs become one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffprobe.doors.jobs import FINISHED, check_processes, is_finished, objective
from diffprobe.doors.published import published_lines
from diffprobe.doors.schema import checked
from diffprobe.doors.sweeps import Job, find_jobs, grouped, join_scores
from diffprobe.errors import UserError
from diffprobe.probes.tables import Score, Summary
from diffprobe.report.choices import HEADLINE_LAYER

CONF = Path(__file__).parents[2] / "conf"
SCORE = Score("pocket", HEADLINE_LAYER, 2, 1.0, "depth", "linear", "none", "test", "a", "spearman", 0.5)
MEAN = Summary("pocket", HEADLINE_LAYER, 2, 1.0, "depth", "linear", "none", "validation", "spearman", 0.5, 0.4, 0.6, 9)


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def run_folder(folder: Path, *overrides: str) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(composed(*overrides), folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    (folder / FINISHED).write_text("{}")
    return folder


def test_a_folder_is_finished_by_its_last_file_and_its_configuration(tmp_path):
    there = run_folder(tmp_path, "seed=1")
    assert is_finished(there, checked(composed("seed=1")))
    assert is_finished(there, checked(composed("seed=1", "job=other", "model.device=cpu")))
    with pytest.raises(UserError, match=r"seed is 1 there, 2 here.*nothing was overwritten"):
        is_finished(there, checked(composed("seed=2")))
    (there / FINISHED).unlink()
    assert not is_finished(there, checked(composed("seed=2")))


def test_the_objective_is_the_mean_of_validation_headline_scores():
    others = [replace(MEAN, mean=9.0, split="test"), replace(MEAN, mean=9.0, control="permuted")]
    others += [replace(MEAN, mean=9.0, metric="rmse"), replace(MEAN, step=1, mean=None)]
    assert objective([MEAN, replace(MEAN, step=0, mean=0.7), *others]) == pytest.approx(0.6)
    assert math.isnan(objective(others))


def test_a_job_of_a_sweep_starts_no_processes_of_its_own(monkeypatch):
    settings = checked(composed("trainer=ddp"))
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with pytest.raises(UserError, match=r"trainer\.devices=2 in a sweep"):
        check_processes(settings.trainer, _moded("MULTIRUN"))
    check_processes(settings.trainer, _moded("RUN"))
    monkeypatch.setenv("SLURM_NTASKS", "2")
    check_processes(settings.trainer, _moded("MULTIRUN"))


def _moded(name: str):
    from hydra.types import RunMode

    return OmegaConf.create({"mode": RunMode[name]})


def test_jobs_are_found_in_order_and_unfinished_ones_named(tmp_path):
    for number in ("10", "2", "9"):
        run_folder(tmp_path / number)
    (tmp_path / "9" / FINISHED).unlink()
    jobs, unfinished = find_jobs(tmp_path)
    assert [job.folder.name for job in jobs] == ["2", "10"]
    assert [folder.name for folder in unfinished] == ["9"]
    with pytest.raises(UserError, match="no such folder"):
        find_jobs(tmp_path / "nowhere")
    with pytest.raises(UserError, match="none is finished"):
        find_jobs(tmp_path / "2")


def jobs_of(*all_overrides: list[str]) -> list[Job]:
    return [Job(Path(str(n)), checked(composed(*items)), items) for n, items in enumerate(all_overrides)]


def test_jobs_that_differ_in_rows_are_one_group():
    rows = jobs_of(["layers=decoder"], ["layers=headline", "steps=last", "property=depth", "control=none"])
    assert [group.name for group in grouped(rows)] == [""]
    named = jobs_of(["probe=linear"], ["probe=linear", "probe.name=biased", "probe.bias=true"])
    assert [group.name for group in grouped(named)] == [""]


def test_jobs_that_differ_in_anything_else_are_groups_named_by_it():
    seeds = jobs_of(["seed=0", "layers=decoder"], ["seed=0", "layers=headline"], ["seed=1", "layers=decoder"])
    assert [(group.name, len(group.jobs)) for group in grouped(seeds)] == [("seed=0", 2), ("seed=1", 1)]
    rates = jobs_of(["probe.learning_rates.depth=0.1"], ["probe.learning_rates.depth=0.2"])
    assert len(grouped(rates)) == 2  # one name for two kinds of probes: no column tells them apart


def test_tables_are_joined_once_and_contradictions_refused():
    other = replace(SCORE, step=3)
    assert join_scores([("0", [SCORE]), ("1", [other, SCORE])]) == [SCORE, other]
    assert join_scores([("0", [SCORE]), ("1", [replace(SCORE, property="saliency")])])[0].property == "saliency"
    assert join_scores([("0", [SCORE]), ("1", [replace(SCORE, value=0.5 + 1e-7)])]) == [SCORE]
    for value in (0.6, None):
        with pytest.raises(UserError, match=r"0 and 1 contradict each other: spearman of depth .* image 'a' is 0\.5"):
            join_scores([("0", [SCORE]), ("1", [replace(SCORE, value=value)])])


def test_published_numbers_stand_beside_this_runs():
    rows = [replace(MEAN, split="test", step=step, mean=mean) for step, mean in ((1, 0.5), (2, 0.52))]
    scores = [
        replace(SCORE, step=step, image=image, value=value) for step, value in ((1, 0.5), (2, 0.52)) for image in "ab"
    ]
    head, *lines = published_lines({"depth": {"spearman": 0.71, "step": 3}, "shading": {"spearman": 0.6}}, rows, scores)
    assert head.startswith("published (Stable Diffusion 1.4) / this run (pocket) at up 3.0, step 3")
    assert lines == ["  depth, rank correlation: 0.71 / 0.52 [0.40, 0.60]", "  depth, found by step: 3 / 2 [2, 2]"]
    assert published_lines({}, rows, scores) == []

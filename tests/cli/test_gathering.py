"""Which jobs of a sweep belong together, how their tables become one, and what a search maximises."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from diffprobe.analyses.probing.findings import published_table
from diffprobe.cli.gathering import Job, _as_folder, _remove_earlier, find_jobs, grouped, join_scores
from diffprobe.cli.running import objective
from diffprobe.errors import UserError
from diffprobe.probes.summaries import Summary
from diffprobe.report.choices import HEADLINE_LAYER
from diffprobe.report.tables import lines_of
from diffprobe.runs.folder import (
    FINISHED,
)
from diffprobe.runs.settings import checked
from tests.reference.score_rows import Score, rows_of, summary_table, table_of
from tests.runs.made_up_folder import composed, run_folder

SCORE = Score("pocket", HEADLINE_LAYER, 2, 1.0, "depth", "linear", "none", "test", "a", "spearman", 0.5)
MEAN = Summary("pocket", HEADLINE_LAYER, 2, 1.0, "depth", "linear", "none", "validation", "spearman", 0.5, 0.4, 0.6, 9)


def test_the_objective_is_the_mean_of_validation_headline_scores():
    others = [replace(MEAN, mean=9.0, split="test"), replace(MEAN, mean=9.0, control="permuted")]
    others += [replace(MEAN, mean=9.0, metric="rmse"), replace(MEAN, step=1, mean=None)]
    assert objective(summary_table([MEAN, replace(MEAN, step=0, mean=0.7), *others])) == pytest.approx(0.6)
    assert math.isnan(objective(summary_table(others)))


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
    assert list(grouped(rows)) == [""]
    named = jobs_of(["probe=linear"], ["probe=linear", "probe.name=biased", "probe.bias=true"])
    assert list(grouped(named)) == [""]


def test_jobs_that_differ_in_anything_else_are_groups_named_by_it():
    seeds = jobs_of(["seed=0", "layers=decoder"], ["seed=0", "layers=headline"], ["seed=1", "layers=decoder"])
    assert [(name, len(jobs)) for name, jobs in grouped(seeds).items()] == [("seed=0", 2), ("seed=1", 1)]
    rates = jobs_of(["probe.learning_rates.depth=0.1"], ["probe.learning_rates.depth=0.2"])
    assert len(grouped(rates)) == 2  # one name for two kinds of probes: no column tells them apart


def joined(first, second):
    return rows_of(join_scores({"0": table_of(first), "1": table_of(second)}))


def test_tables_are_joined_once_and_contradictions_refused():
    other, saliency = replace(SCORE, step=3), replace(SCORE, property="saliency")
    assert joined([SCORE], [other, SCORE]) == [SCORE, other]
    assert joined([SCORE], [saliency]) == [saliency, SCORE]
    assert joined([SCORE], [replace(SCORE, value=0.5 + 1e-7)]) == [SCORE]
    assert joined([replace(SCORE, value=None)], [replace(SCORE, value=None)]) == [replace(SCORE, value=None)]
    for value in (0.6, None):
        with pytest.raises(UserError, match=r"0 and 1 contradict each other: spearman of depth .* image 'a' is 0\.5"):
            joined([SCORE], [replace(SCORE, value=value)])


def test_published_numbers_stand_beside_this_runs():
    rows = [replace(MEAN, split="test", step=step, mean=mean) for step, mean in ((1, 0.5), (2, 0.52))]
    scores = [
        replace(SCORE, step=step, image=image, value=value)
        for step, value in ((1, 0.5), (2, 0.52))
        for image in "abcdefgh"
    ]
    means, published = summary_table(rows), {"depth": {"spearman": 0.71, "step": 3}, "shading": {"spearman": 0.6}}
    table = published_table(published, means, table_of(scores))["published"]
    assert table.title == "published (Stable Diffusion 1.4) beside this run (pocket) at up 3.0, step 3"
    assert lines_of(table) == [
        ["what", "published", "this run"],
        ["depth, rank correlation", "0.71", "0.52 [0.40, 0.60]"],
        ["depth, found by step", "3", "2 [2, 2]"],
    ]
    assert published_table({}, means, table_of(scores)) == {}


def test_what_was_gathered_before_does_not_stand_beside_what_is_gathered_now(tmp_path):
    old = ["scores.parquet", "groups.csv", "figures/a.png", "seed=0/scores.csv", "seed=0/tables/best_layers.md"]
    own = ["notes/todo.md", "seed=1/notes.md"]
    for name in (*old, *own):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    _remove_earlier(tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == own
    assert not (tmp_path / "seed=0").exists()
    _remove_earlier(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["..", "../..", "a/../../b"])
def test_a_group_of_jobs_gets_no_folder_above_its_own(name):
    assert ".." not in _as_folder(name)
    assert "/" not in _as_folder(name)


def test_the_objective_of_errors_is_higher_the_lower_they_are():
    normals = replace(MEAN, property="normals", metric="mean_angle", mean=20.0)
    shares = replace(normals, metric="within_30", mean=0.7)
    assert objective(summary_table([normals, shares])) == pytest.approx(-20 / 180)
    assert objective(summary_table([replace(normals, mean=30.0), shares])) == pytest.approx(-30 / 180)
    assert objective(summary_table([normals, shares, MEAN])) == pytest.approx((0.5 - 20 / 180) / 2)


def test_the_objective_counts_a_metric_only_of_properties_whose_headline_it_is():
    flow = replace(MEAN, property="flow", metric="rmse", mean=2.0)
    rows = [MEAN, replace(MEAN, metric="rmse", mean=9.0), flow]
    assert objective(summary_table(rows)) == objective(summary_table(rows[::-1])) == pytest.approx((0.5 - 2) / 2)

"""Finished runs side by side."""

from dataclasses import replace

import pytest

from diffprobe.analyses.comparison.report import (
    FinishedRun,
    differing_settings,
    headline_scores,
    run_differences,
    run_lines,
)
from diffprobe.errors import UserError
from diffprobe.probes.summaries import summarise
from diffprobe.prototypes.separation import TestRow
from diffprobe.report.report import frame_of
from tests.reference.score_rows import Score, table_of

BLANK = Score("pocket", "a", 0, 999.0, "saliency", "linear", "none", "test", "", "dice", 0.0)
IMAGES = [f"image{number}" for number in range(20)]


def make_run(name, gain=0.0, images=IMAGES, model="pocket", **settings):
    """Layer b is best; scores rise over two steps; image by image `gain` better than another run."""
    scores = [
        replace(BLANK, model=model, layer=layer, step=step, split=split, image=image,
                value=0.4 + 0.1 * step + 0.2 * (layer == "b") + 0.005 * (at % 3) + gain)
        for split in ("validation", "test")
        for layer in ("a", "b")
        for step in (0, 1)
        for at, image in enumerate(images)
    ]  # fmt: skip
    return FinishedRun(name, table_of(scores), summarise(table_of(scores)), settings=settings)


def test_the_layer_is_chosen_on_validation_images_and_told_at_the_last_step():
    (row,) = headline_scores([make_run("one")])
    assert (row.run, row.what, row.metric, row.layer, row.step, row.n) == ("one", "saliency", "dice", "b", 1, 20)
    assert row.mean == pytest.approx(0.7 + 0.005 * 19 / 20)


def test_differences_are_of_the_images_that_both_have():
    runs = [make_run("one", 0.1), make_run("two", images=[*IMAGES[5:], "other"])]
    (row,) = run_differences(runs, headline_scores(runs))
    assert (row.model, row.other_model, row.n, row.left_out) == ("one", "two", 15, 6)
    assert row.difference == pytest.approx(0.1, abs=0.006)
    assert row.low is not None
    assert row.low > 0.08
    lines = run_lines(headline_scores(runs), [row])
    assert lines[0].startswith("saliency, Dice: one 0.80 [")
    assert "one is above two on the 15 images in common: 0.10 [" in lines[1]


def test_runs_without_images_in_common_have_no_difference_and_say_so():
    runs = [make_run("one"), make_run("two", images=["else"])]
    (row,) = run_differences(runs, headline_scores(runs))
    assert (row.n, row.difference) == (0, None)
    assert "no test images in common" in run_lines(headline_scores(runs), [row])[1]


def test_three_runs_are_compared_two_by_two_and_p_is_adjusted_for_all():
    runs = [make_run(name, gain) for name, gain in (("one", 0.0), ("two", 0.1), ("three", 0.2))]
    rows = run_differences(runs, headline_scores(runs))
    assert [(row.model, row.other_model) for row in rows] == [("one", "two"), ("one", "three"), ("two", "three")]
    assert all(row.p_holm == pytest.approx(3 * (row.p or 0)) for row in rows)


def test_of_objects_the_highest_statistic_is_told_with_its_interval():
    def row_of(layer, value):
        interval = (value, value - 0.1, value + 0.1)
        return TestRow("pocket", layer, 0, 1.0, "cosine", "scdi", "dcdi", "auc", *interval, 0.01, None, None)

    rows = frame_of(TestRow, [row_of("a", 0.6), row_of("b", 0.9), row_of("d", 0.7)])
    (row,) = headline_scores([FinishedRun("objects", tests=rows)])
    assert (row.what, row.metric, row.layer, row.mean) == ("objects (cosine)", "AUC of scdi < dcdi", "b", 0.9)
    assert run_differences([FinishedRun("objects", tests=rows)], [row]) == []


def test_settings_are_listed_where_runs_differ():
    runs = [make_run("one", **{"seed": 0, "job": "x"}), make_run("two", **{"seed": 1, "job": "x"}), make_run("three")]
    rows = differing_settings(runs[:2])
    assert [(row.setting, row.run, row.value) for row in rows] == [("seed", "one", "0"), ("seed", "two", "1")]
    assert {row.value for row in differing_settings(runs) if row.run == "three"} == {""}


def test_a_run_with_nothing_to_compare_is_refused():
    with pytest.raises(UserError, match="the run empty has no scores"):
        headline_scores([FinishedRun("empty")])

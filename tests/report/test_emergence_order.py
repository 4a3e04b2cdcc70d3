"""Sentences on the order in which properties emerge claim what intervals and adjusted p support."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np

from diffprobe.probes.emergence_order import EmergenceDifference
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.report.emergence_order import emergence_order, order_lines
from tests.report.made_up_run import BEST, make_choices, make_comparison

ROW = EmergenceDifference(
    *("pocket", "linear", "saliency", "a", 3, "depth", "b", 8, 0.95),
    *(5, 3, 7, 0.0002, 0.0006),
    n=70,
    left_out=0,
)
OPEN = replace(ROW, other_property="shading", difference=1, low=-1, high=2, p=0.3, p_holm=0.6)


def test_an_order_that_is_shown_is_told_with_its_steps() -> None:
    assert order_lines([ROW]) == ["Paired on the same images, saliency emerges before depth, by 5 steps [3, 7]."]


def test_what_is_not_shown_is_said_so_with_its_interval() -> None:
    assert order_lines([ROW, OPEN])[1] == (
        "Paired on the same images, no order of emergence is shown of saliency and shading, 1 step [-1, 2]."
    )


def test_an_interval_beside_0_needs_the_adjusted_p_too() -> None:
    (line,) = order_lines([replace(ROW, p_holm=0.2)])
    assert "no order of emergence is shown" in line


def test_an_order_that_is_the_other_way_round_on_the_common_images_is_told_so() -> None:
    (line,) = order_lines([replace(ROW, difference=-2, low=-3, high=-1)])
    assert line == "Paired on the same images, depth emerges before saliency, by 2 steps [1, 3]."


def test_many_pairs_are_told_by_the_earlier_property() -> None:
    rows = [
        replace(ROW, property=first, other_property=second)
        for first, second in combinations(("saliency", "shape", "depth", "normals"), 2)
    ]
    lines = order_lines([*rows, *[OPEN] * 4])
    assert lines == [
        "Paired on the same images, saliency emerges before shape, depth and normals; shape emerges before depth and "
        "normals; depth emerges before normals.",
        "Paired on the same images, no order of emergence is shown of 4 other pairs of properties.",
    ]


def test_few_images_get_no_verdict() -> None:
    assert order_lines([replace(ROW, n=4)]) == [
        "No order of emergence is told of 1 pair of properties: 4 images cannot show one, it takes 6."
    ]


def test_a_pair_without_common_images_is_not_told() -> None:
    nothing = replace(ROW, difference=None, low=None, high=None, p=None, p_holm=None, n=0, left_out=70)
    assert order_lines([nothing]) == []


def rising(name: str, at: int, metric: str = "dice") -> ScoreBlock:
    """Scores of 40 images that come to their last one at step `at`."""
    random = np.random.default_rng(at)
    steps = np.arange(8)[:, None]
    values = np.where(steps < at, 0.4, 0.9) + 0.02 * random.normal(size=(8, 40))
    moments = [(step, 900.0 - step) for step in range(8)]
    return ScoreBlock(
        "pocket", BEST, name, "linear", "none", "test", metric, moments, [f"i{row}" for row in range(40)], values
    )


def test_a_property_that_does_not_beat_its_controls_has_no_place_in_the_order() -> None:
    names = ("saliency", "depth", "shading")
    metrics = ("dice", "spearman", "spearman")
    scores = score_table([rising(name, at, metric) for name, at, metric in zip(names, (2, 4, 6), metrics, strict=True)])
    first, second, third = make_choices()
    lines, tables = emergence_order(scores, [first, second, third])
    assert "saliency emerges before depth" in lines[0]
    assert len(tables["emergence_order"].data) == 3
    weak = make_comparison("permuted", 0.01, p=0.4, property="saliency")
    lines, tables = emergence_order(scores, [replace(first, comparisons=(weak,)), second, third])
    assert lines[-1] == "Not compared in this: saliency, not shown to be better than all controls."
    assert len(tables["emergence_order"].data) == 1

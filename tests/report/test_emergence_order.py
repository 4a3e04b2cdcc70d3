"""Sentences on the order in which properties emerge claim what intervals and adjusted p support."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from diffprobe.probes.emergence_order import EmergenceDifference
from diffprobe.report.emergence_order import order_lines

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

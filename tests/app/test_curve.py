"""The curves of the page: an SVG with every score, in the metric's range."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from diffprobe.app.curve import BOTTOM, COLOURS, TOP, Curve, curves_html


def drawn(*arguments, **options):
    text = curves_html(*arguments, **options)
    return ElementTree.fromstring(f"<div>{text}</div>")


def dots(found, colour):
    return [(float(dot.get("cx")), float(dot.get("cy"))) for dot in found.iter("circle") if dot.get("fill") == colour]


def test_every_score_is_a_dot_between_the_ends_of_the_metrics_range():
    found = drawn([Curve("a <cube>", [0.0, 0.5, 1.0])], [0, 1, 2], "dice", 1)
    (_, low), (middle, half), (_, high) = dots(found, COLOURS[0])
    assert (low, half, high) == (BOTTOM, (BOTTOM + TOP) / 2, TOP)
    (line,) = [path for path in found.iter("path") if path.get("stroke-dasharray")]
    assert line.get("d").startswith(f"M{middle:.1f} ")
    assert "a <cube>: 0.50" in "".join(found.itertext())
    assert found.find("svg").get("aria-label") == ("Dice at steps 1, 2, 3. a <cube>: 0.00, 0.50, 1.00")


def test_errors_start_at_nothing_and_end_at_the_largest():
    found = drawn([Curve("one", [30.0, 10.0]), Curve("two", [20.0, 15.0])], [0, 2], "mean_angle", 2)
    assert [y for _, y in dots(found, COLOURS[0])] == pytest.approx([TOP, BOTTOM - (BOTTOM - TOP) / 3], abs=0.1)
    assert "lower is better" in found.find("svg").get("aria-label")


def test_a_score_that_is_none_leaves_a_gap_and_is_told():
    found = drawn([Curve("one", [0.2, math.nan, 0.4, 0.6])], [0, 1, 2, 3], "spearman", 1)
    assert len(dots(found, COLOURS[0])) == 3
    (line,) = [path for path in found.iter("path") if path.get("stroke") == COLOURS[0]]
    assert re.sub(r"[\d. ]", "", line.get("d")) == "MML"
    assert "one: no score" in "".join(found.itertext())


def test_at_a_step_without_probes_the_line_stands_between_the_dots():
    found = drawn([Curve("one", [0.2, 0.4])], [0, 2], "dice", 1)
    (left, _), (right, _) = dots(found, COLOURS[0])
    (line,) = [path for path in found.iter("path") if path.get("stroke-dasharray")]
    assert line.get("d").startswith(f"M{(left + right) / 2:.1f} ")
    assert "one: no probe" in "".join(found.itertext())


def test_the_current_images_curve_is_the_thick_one_on_top():
    found = drawn([Curve("one", [0.1, 0.2]), Curve("two", [0.3, 0.4])], [0, 1], "dice", 0, current=0)
    lines = [path for path in found.iter("path") if path.get("stroke") in COLOURS]
    assert [line.get("stroke") for line in lines] == [COLOURS[1], COLOURS[0]]
    assert float(lines[1].get("stroke-width")) > float(lines[0].get("stroke-width"))

"""Curves over steps as a table of scalars."""

import math

from diffprobe.files import NO_STEP
from diffprobe.report.report import Headed, scalars_over_steps, with_headings


def test_steps_count_from_one_in_order_and_a_missing_value_is_not_a_number():
    found = scalars_over_steps([(1, "a", 0.5, 0.4, 0.6), (0, "a", 0.3, None, math.nan), (0, "b", None, None, None)])
    assert list(found.columns) == ["denoising_step", "a", "a_low", "a_high"]
    assert found["denoising_step"].tolist() == [1, 2]
    assert found["a"].tolist() == [0.3, 0.5]
    assert found["a_low"].isna().tolist() == [True, False]


def test_what_belongs_to_no_step_has_none():
    assert scalars_over_steps([(NO_STEP, "a", 0.5, 0.4, 0.6)])["denoising_step"].isna().all()


def test_without_points_there_are_no_curves():
    assert scalars_over_steps([]).empty
    assert list(scalars_over_steps([]).columns) == ["denoising_step"]


def test_findings_have_headings_only_where_there_are_many_groups():
    few = {name: [f"{name} rises.", f"{name} is high."] for name in "abcd"}
    assert with_headings(few, ["Of all."]) == [line for lines in few.values() for line in lines] + ["Of all."]
    many = {**few, "e": ["e falls."]}
    assert with_headings(many)[-1] == Headed("e", ["e falls."])
    assert with_headings(many, ["Of all."])[-1] == Headed("all of them", ["Of all."])
    assert len(with_headings(many)) == 5

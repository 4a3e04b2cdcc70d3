"""Which layer and step a report speaks of."""

from dataclasses import replace

import pytest

from diffprobe.errors import UserError
from diffprobe.probes.summaries import Emergence
from diffprobe.probes.tables import Score
from diffprobe.report.choices import choose, curve, number, position_row
from tests.report.made_up_run import BEST, LAYERS, make_summaries


def make_scores(values, layer=BEST, property="depth", metric="spearman"):
    """Four images with the same score at each step."""
    return [
        Score("pocket", layer, step, None, property, "linear", "none", "test", f"image {image}", metric, value)
        for step, value in enumerate(values)
        for image in range(4)
    ]


def test_choose_takes_the_best_validation_layer_and_its_emergence():
    summaries = [row for row in make_summaries(steps=range(4)) if row.property == "depth"]

    (choice,) = choose(summaries, make_scores([0.2, 0.5, 0.77, 0.8]))

    assert (choice.property, choice.metric, choice.best) == ("depth", "spearman", BEST)
    assert choice.emergence == Emergence(step=2, low=2, high=2)


def test_test_scores_have_no_say_in_the_choice_of_the_layer():
    rows = [row for row in make_summaries(steps=range(2)) if row.property == "depth"]
    tempting = [replace(row, mean=0.99) if row.layer == LAYERS[0] and row.split == "test" else row for row in rows]

    (choice,) = choose(tempting, make_scores([0.5, 0.8]))

    assert choice.best == BEST


def test_choose_without_validation_rows_is_refused():
    only_test = [row for row in make_summaries(steps=range(2)) if row.split == "test"]

    with pytest.raises(UserError, match="validation"):
        choose(only_test, make_scores([0.5, 0.8]))


def test_curve_is_in_step_order_and_holds_one_control_only(summaries, choices):
    rows = curve(reversed(summaries), choices[0], BEST, control="permuted")

    assert [row.step for row in rows] == list(range(15))
    assert {(row.control, row.split, row.layer) for row in rows} == {("permuted", "test", BEST)}


def test_position_row_is_none_where_the_control_was_not_run(summaries, choices):
    without = [row for row in summaries if row.control != "position"]

    assert position_row(summaries, choices[1]) is not None
    assert position_row(without, choices[1]) is None


def test_a_missing_value_is_nan_and_not_zero():
    assert number(None) != number(None)
    assert number(0.0) == 0.0

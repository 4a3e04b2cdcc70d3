from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from diffprobe.errors import UserError
from diffprobe.probes.summaries import EmergenceStep, Summary, best_layer, emergence_step, summarise, summary_rows
from tests.reference.score_rows import Score, table_of


def score(image: int, value: float | None, **changes: object) -> Score:
    made = Score("pocket", "a", 0, 900.0, "depth", "linear", "none", "test", f"image_{image}", "spearman", value)
    return replace(made, **changes)  # type: ignore[arg-type]


def column(values: list[float | None], **changes: object) -> list[Score]:
    return [score(image, value, **changes) for image, value in enumerate(values)]


def summarised(rows: list[Score], **options: bool) -> list[Summary]:
    return summary_rows(summarise(table_of(rows), **options))


def test_the_mean_has_students_interval_where_scores_are_not_skewed() -> None:
    values = [0.4, 0.5, 0.6, 0.7, 0.8]
    (found,) = summarised(column(values))
    expected = stats.t.interval(0.95, 4, 0.6, stats.sem(values))
    assert (found.mean, found.low, found.high, found.n) == (*map(pytest.approx, (0.6, *expected)), 5)


@pytest.mark.parametrize("images", [5, 8, 20, 40])
def test_intervals_hold_the_true_mean_about_as_often_as_they_say(images: int) -> None:
    rng = np.random.default_rng(0)
    scores = [row for step in range(400) for row in column((rng.beta(8, 2, images)).tolist(), step=step)]
    covered = np.mean([row.low <= 0.8 <= row.high for row in summarised(scores)])  # type: ignore[operator]
    assert 0.92 < covered < 0.99


def test_no_interval_goes_beyond_what_a_metric_can_be() -> None:
    high = [0.7, 0.99, 1.0, 0.98, 0.999]
    dice, rank, rmse = (summarised(column(high, metric=metric))[0] for metric in ("dice", "spearman", "rmse"))
    assert (dice.high, rank.high) == (1, 1)
    assert rmse.high > 1  # type: ignore[operator]
    assert summarised(column(high, metric="dice"), differences=True)[0].high == rmse.high


def test_fewer_than_five_images_have_no_interval() -> None:
    four, five = summarised(column([0.1, 0.2, 0.3, 0.4])), summarised(column([0.1, 0.2, 0.3, 0.4, 0.9]))
    assert (four[0].mean, four[0].low, four[0].high, four[0].n) == (pytest.approx(0.25), None, None, 4)
    assert five[0].low is not None


def test_undefined_values_are_left_out_and_counted() -> None:
    (found,) = summarised(column([0.5, None, 0.7, None, 0.4, 0.8, 0.6]))
    (whole,) = summarised(column([0.5, 0.7, 0.4, 0.8, 0.6]))
    assert found.n == 5
    assert (found.mean, found.low, found.high) == pytest.approx((whole.mean, whole.low, whole.high))


def test_nothing_defined_is_missing_not_zero() -> None:
    (found,) = summarised(column([None, None]))
    assert (found.mean, found.low, found.high, found.n) == (None, None, None, 0)


def test_every_key_gets_its_own_row_in_order() -> None:
    scores = column([1.0], split="validation") + column([2.0]) + column([3.0], metric="rmse") + column([4.0], step=3)
    assert [row.mean for row in summarised(scores)] == [1.0, 2.0, 3.0, 4.0]


def test_the_best_layer_is_chosen_on_validation_at_the_last_step() -> None:
    scores = [
        *column([0.9], layer="early", step=0, split="validation"),
        *column([0.2], layer="early", step=1, split="validation"),
        *column([0.5], layer="late", step=1, split="validation"),
        *column([0.1], layer="late", step=1, split="test"),
        *column([0.8], layer="early", step=1, split="test"),
        *column([0.9], layer="worse", step=1, split="validation", metric="rmse"),
        *column([0.9], layer="controlled", step=1, split="validation", control="permuted"),
        *column([None], layer="undefined", step=1, split="validation"),
    ]
    summaries = summarise(table_of(scores))
    assert best_layer(summaries, "depth") == "late"
    assert best_layer(summaries, "depth", step=0) == "early"
    assert best_layer(summaries, "depth", control="permuted") == "controlled"
    with pytest.raises(UserError, match="shading"):
        best_layer(summaries, "shading")


def test_a_layer_is_not_best_for_the_few_images_on_which_it_has_a_score() -> None:
    scores = column([0.60] * 10, layer="good", split="validation")
    scores += column([0.65] + [None] * 9, layer="degenerate", split="validation")
    scores += column([0.70] * 9 + [None], layer="nearly whole", split="validation")
    assert best_layer(summarise(table_of(scores)), "depth") == "nearly whole"
    assert best_layer(summarise(table_of(scores[:20])), "depth") == "good"


def test_the_best_layer_of_one_of_several_probes_has_to_be_asked_for() -> None:
    scores = [
        *column([0.9], layer="early", split="validation", probe="ridge"),
        *column([0.5], layer="late", split="validation", probe="mlp"),
    ]
    summaries = summarise(table_of(scores))
    assert best_layer(summaries[:1], "depth") == "early"
    assert best_layer(summaries, "depth", probe="mlp") == "late"
    with pytest.raises(UserError, match=r"several probes \(ridge, mlp\)"):
        best_layer(summaries, "depth")


def test_emergence_is_told_of_one_model_alone() -> None:
    rising = [row for step, value in enumerate([0.1, 1.0]) for row in column([value] * 3, step=step, model="sd14")]
    flat = [row for step in range(2) for row in column([1.0] * 3, step=step)]
    assert emergence_step(table_of(rising + flat), "a", "depth", model="sd14").step == 1
    assert emergence_step(table_of(rising + flat), "a", "depth", model="pocket").step == 0
    with pytest.raises(UserError, match="several models"):
        emergence_step(table_of(rising + flat), "a", "depth")


def test_emergence_is_the_first_step_near_the_last() -> None:
    curve = [0.1, 0.5, 0.94, 0.955, 0.9, 1.0]
    scores = [row for step, value in enumerate(curve) for row in column([value] * 5, step=2 * step)]
    assert emergence_step(table_of(scores), "a", "depth") == EmergenceStep(6, 6, 10, 5)  # at step 8 it is below again
    assert emergence_step(table_of(scores), "a", "depth", fraction=0.5) == EmergenceStep(2, 2, 2, 5)


def test_emergence_differs_between_images_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    curve = [0.2, 0.5, 0.8, 0.95, 1.0]
    scores = [row for step, mean in enumerate(curve) for row in column(rng.normal(mean, 0.4, 20).tolist(), step=step)]
    found = emergence_step(table_of(scores), "a", "depth")
    assert found.low is not None
    assert found.step is not None
    assert found.high is not None
    assert found.low <= found.step <= found.high
    assert found.low < found.high


def test_what_never_rises_above_zero_does_not_emerge() -> None:
    scores = [row for step in range(3) for row in column([-0.1, -0.2], step=step)]
    assert emergence_step(table_of(scores), "a", "depth") == EmergenceStep(None, None, None, 2)


def test_a_step_at_which_few_images_have_a_score_has_not_emerged() -> None:
    scores = column([0.9, 0.9] + [None] * 8, step=0) + column([0.2] * 10, step=1) + column([0.8] * 10, step=2)
    assert emergence_step(table_of(scores), "a", "depth").step == 2


def test_emergence_in_few_images_has_no_interval() -> None:
    scores = [row for step, value in enumerate([0.1, 0.9, 1.0]) for row in column([value] * 4, step=step)]
    assert emergence_step(table_of(scores), "a", "depth", fraction=0.8) == EmergenceStep(1, None, None, 4)


def test_emergence_needs_scores_of_that_layer() -> None:
    with pytest.raises(UserError, match="'b'"):
        emergence_step(table_of(column([1.0])), "b", "depth")


# Errors, of which the lower is the better


def error(values: list[float | None], **changes: object) -> list[Score]:
    return column(values, **{"property": "normals", "metric": "mean_angle", **changes})


def test_the_best_layer_of_an_error_is_the_lowest_and_of_a_share_beside_it_nothing_is_asked() -> None:
    scores = []
    for layer, angle, share in (("far", 60.0, 0.9), ("near", 20.0, 0.1), ("middle", 35.0, 0.5)):
        scores += error([angle] * 5, layer=layer, split="validation")
        scores += error([share] * 5, layer=layer, split="validation", metric="within_30")
    assert best_layer(summarise(table_of(scores)), "normals") == "near"
    rmse = [replace(row, metric="rmse") for row in scores if row.metric == "mean_angle"]
    assert best_layer(summarise(table_of(rmse)), "normals") == "near"
    depth = [replace(row, metric="spearman") for row in rmse]
    assert best_layer(summarise(table_of(depth + rmse)), "normals") == "far"  # where there are both, the correlation


def test_a_layer_is_not_best_for_the_few_images_on_which_its_error_is_known() -> None:
    scores = error([30.0] * 10, layer="whole", split="validation")
    scores += error([25.0] * 4 + [None] * 6, layer="degenerate", split="validation")
    assert best_layer(summarise(table_of(scores)), "normals") == "whole"


def test_intervals_of_angles_end_at_nothing_and_at_half_a_turn() -> None:
    (near,) = summarised(error([0.0, 0.1, 0.0, 9.0, 0.2]))
    (far,) = summarised(error([180.0, 179.9, 180.0, 171.0, 179.8]))
    (free,) = summarised(column([0.0, 0.1, 0.0, 9.0, 0.2], metric="of my own"))
    assert (near.low, far.high) == (0, 180)
    assert free.low is not None
    assert free.low < 0
    assert near.high == free.high


def test_an_error_emerges_at_the_first_step_at_which_it_is_nearly_as_low_as_in_the_end() -> None:
    curve = [80.0, 40.0, 21.2, 21.0, 30.0, 20.0]  # 20 / 0.95 = 21.05
    scores = [row for step, value in enumerate(curve) for row in error([value] * 5, step=2 * step)]
    assert emergence_step(table_of(scores), "a", "normals") == EmergenceStep(6, 6, 10, 5)  # at step 8 it is above again
    assert emergence_step(table_of(scores), "a", "normals", fraction=0.5) == EmergenceStep(2, 2, 2, 5)
    assert emergence_step(table_of(scores), "a", "normals", fraction=0.25) == EmergenceStep(0, 0, 0, 5)


def test_an_error_that_only_grows_has_emerged_at_the_first_step() -> None:
    scores = [row for step in range(4) for row in error([10.0 + step] * 5, step=step)]
    assert emergence_step(table_of(scores), "a", "normals") == EmergenceStep(0, 0, 0, 5)


def test_the_steps_of_an_error_are_those_of_its_mirrored_score_with_their_interval() -> None:
    random = np.random.default_rng(0)
    values = 20 + 60 * np.exp(-np.arange(8) / 2)[:, None] + random.normal(0, 4, (8, 20))
    scores = [row for step, line in enumerate(values.tolist()) for row in error(line, step=step)]
    found = emergence_step(table_of(scores), "a", "normals", fraction=0.8)
    below = values - values[-1] / 0.8
    first = next(step for step in range(8) if below[step].mean() <= 0)
    means = below.mean(1)
    half = stats.t.ppf(0.975, 19) * stats.sem(below, axis=1)  # without the correction for skew, which is small here
    assert found.step == first
    assert 0 < first < 7
    assert found.low is not None
    assert found.high is not None
    assert abs(found.low - next(step for step in range(8) if means[step] - half[step] <= 0)) <= 1
    assert found.low <= found.step <= found.high


def test_an_error_of_nothing_has_no_level_to_come_down_to() -> None:
    scores = [row for step in range(3) for row in error([2.0 - step] * 5 if step < 2 else [0.0] * 5, step=step)]
    assert emergence_step(table_of(scores), "a", "normals") == EmergenceStep(None, None, None, 5)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffprobe.errors import UserError
from diffprobe.probes.summaries import Emergence, best_layer, emergence_step, summarise
from diffprobe.probes.tables import Score


def score(image: int, value: float | None, **changes: object) -> Score:
    made = Score("pocket", "a", 0, 900.0, "depth", "linear", "none", "test", f"image_{image}", "spearman", value)
    return replace(made, **changes)  # type: ignore[arg-type]


def column(values: list[float | None], **changes: object) -> list[Score]:
    return [score(image, value, **changes) for image, value in enumerate(values)]


def test_the_mean_and_the_percentiles_of_resampled_means() -> None:
    values = np.random.default_rng(1).normal(size=30)
    (found,) = summarise(column(values.tolist()))
    assert found.mean == pytest.approx(values.mean())
    assert found.n == 30
    rng = np.random.default_rng(7)
    slow = [rng.choice(values, 30).mean() for _ in range(20000)]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    scores = [row for step in range(300) for row in column(rng.normal(size=40).tolist(), step=step)]
    found = summarise(scores, resamples=500)
    covered = np.mean([row.low <= 0 <= row.high for row in found])  # type: ignore[operator]
    assert 0.89 < covered < 0.98


def test_a_summary_is_reproducible_and_depends_on_the_seed() -> None:
    scores = column(np.random.default_rng(0).normal(size=20).tolist())
    assert summarise(scores) == summarise(scores) != summarise(scores, seed=1)


def test_keys_with_the_same_images_share_their_resamples() -> None:
    values = [0.1, 0.5, 0.2, 0.9]
    first, second = summarise(column(values) + column([value + 1 for value in values], step=1))
    assert second.low == pytest.approx(first.low + 1)  # type: ignore[operator]
    assert second.high == pytest.approx(first.high + 1)  # type: ignore[operator]


def test_undefined_values_are_left_out_and_counted() -> None:
    (found,) = summarise(column([0.5, None, 0.7, None]))
    assert found.mean == pytest.approx(0.6)
    assert found.n == 2
    assert 0.5 <= found.low < found.high <= 0.7  # type: ignore[operator]


def test_nothing_defined_is_missing_not_zero() -> None:
    (found,) = summarise(column([None, None]))
    assert (found.mean, found.low, found.high, found.n) == (None, None, None, 0)


def test_every_key_gets_its_own_row_in_order() -> None:
    scores = column([1.0], split="validation") + column([2.0]) + column([3.0], metric="rmse") + column([4.0], step=3)
    assert [row.mean for row in summarise(scores)] == [1.0, 2.0, 3.0, 4.0]


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
    summaries = summarise(scores)
    assert best_layer(summaries, "depth") == "late"
    assert best_layer(summaries, "depth", step=0) == "early"
    assert best_layer(summaries, "depth", control="permuted") == "controlled"
    with pytest.raises(UserError, match="shading"):
        best_layer(summaries, "shading")


def test_the_best_layer_of_one_of_several_probes_has_to_be_asked_for() -> None:
    scores = [
        *column([0.9], layer="early", split="validation", probe="ridge"),
        *column([0.5], layer="late", split="validation", probe="mlp"),
    ]
    summaries = summarise(scores)
    assert best_layer(summaries[:1], "depth") == "early"
    assert best_layer(summaries, "depth", probe="mlp") == "late"
    with pytest.raises(UserError, match=r"several probes \(ridge, mlp\)"):
        best_layer(summaries, "depth")


def test_emergence_is_told_of_one_model_alone() -> None:
    rising = [row for step, value in enumerate([0.1, 1.0]) for row in column([value] * 3, step=step, model="sd14")]
    flat = [row for step in range(2) for row in column([1.0] * 3, step=step)]
    assert emergence_step(rising + flat, "a", "depth", model="sd14").step == 1
    assert emergence_step(rising + flat, "a", "depth", model="pocket").step == 0
    with pytest.raises(UserError, match="several models"):
        emergence_step(rising + flat, "a", "depth")


def test_emergence_is_the_first_step_near_the_last() -> None:
    curve = [0.1, 0.5, 0.94, 0.955, 0.9, 1.0]
    scores = [row for step, value in enumerate(curve) for row in column([value] * 5, step=2 * step)]
    assert emergence_step(scores, "a", "depth") == Emergence(6, 6, 6)
    assert emergence_step(scores, "a", "depth", fraction=0.5) == Emergence(2, 2, 2)


def test_emergence_differs_between_images_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    curve = [0.2, 0.5, 0.8, 0.95, 1.0]
    scores = [row for step, mean in enumerate(curve) for row in column(rng.normal(mean, 0.4, 20).tolist(), step=step)]
    found = emergence_step(scores, "a", "depth")
    assert found.low is not None
    assert found.step is not None
    assert found.high is not None
    assert found.low <= found.step <= found.high
    assert found.low < found.high


def test_what_never_rises_above_zero_does_not_emerge() -> None:
    scores = [row for step in range(3) for row in column([-0.1, -0.2], step=step)]
    assert emergence_step(scores, "a", "depth") == Emergence(None, None, None)


def test_emergence_needs_scores_of_that_layer() -> None:
    with pytest.raises(UserError, match="'b'"):
        emergence_step(column([1.0]), "b", "depth")

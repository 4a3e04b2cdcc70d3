from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from diffprobe.statistics.differences import StepInterval, median_step, steps_reaching


def above(seed: int, images: int, noise: float = 0.1, kind: str = "normal") -> np.ndarray:
    """Scores less 0.95 of the last ones, [6 steps, images]; the means reach it at step 3."""
    random = np.random.default_rng(seed)
    draw = random.normal if kind == "normal" else lambda size: random.exponential(size=size) - 1
    own = 1 + 0.3 * draw(size=(1, images))
    scores = np.array([0.2, 0.5, 0.85, 0.97, 1, 1])[:, None] * own + noise * draw(size=(6, images))
    return scores - 0.95 * scores[-1]


def test_steps_that_the_data_do_not_speak_against() -> None:
    values = above(1, 20)
    found = steps_reaching(values)
    intervals = [stats.t.interval(0.95, 19, row.mean(), stats.sem(row)) for row in values]
    assert found.first == next(step for step, row in enumerate(values) if row.mean() >= 0)
    assert found.low == next(step for step, (_, high) in enumerate(intervals) if high >= -0.005)
    assert found.high == next(step for step, (low, _) in enumerate(intervals) if low >= 0.005)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("images", [5, 8, 20])
def test_intervals_hold_the_true_step_as_often_as_they_say(kind: str, images: int) -> None:
    found = [steps_reaching(above(seed, images, kind=kind)) for seed in range(200)]
    assert np.mean([step.low <= 3 <= step.high for step in found]) >= 0.93  # type: ignore[operator]


def test_a_step_that_is_not_reached_is_beyond_the_last() -> None:
    assert steps_reaching(np.full((3, 6), -1.0)) == StepInterval(3, 3, 3)


def test_few_images_have_a_step_and_no_interval() -> None:
    assert steps_reaching(np.array([[-1.0] * 4, [1.0] * 4])) == StepInterval(1, None, None)


def test_a_step_with_scores_of_few_images_does_not_count() -> None:
    values = np.full((3, 10), np.nan)
    values[0, :3], values[1], values[2] = 1.0, -1.0, 1.0  # three images alone say that the first step is there
    assert steps_reaching(values) == StepInterval(2, 2, 2)


def test_the_median_has_the_interval_of_order_statistics() -> None:
    assert median_step(np.array([3, 1, 2, 9, 4, 7])) == StepInterval(
        3, 1, 9
    )  # of 6: the smallest and the largest, 96.9 %
    steps = np.arange(20)
    found = median_step(steps)
    assert (found.low, found.high) == (5, 14)  # the 6th and the 15th of 20 hold it in 95.9 %
    assert stats.binom.cdf(5, 20, 0.5) <= 0.025 < stats.binom.cdf(6, 20, 0.5)


def test_five_images_cannot_hold_a_median_in_95_percent() -> None:
    assert median_step(np.array([1, 1, 1, 1, 1])) == StepInterval(1, None, None)

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from diffprobe.statistics.intervals import Interval, stratified_difference
from tests.statistics.test_means import DRAWS


def test_a_mix_of_classes_is_no_difference() -> None:
    random = np.random.default_rng(0)
    easy = np.array([0] * 36 + [1] * 4), np.array([0] * 4 + [1] * 36)
    first, second = (np.where(of == 0, 0.9, 0.5) + 0.02 * random.normal(size=40) for of in easy)
    assert first.mean() - second.mean() > 0.3
    found = stratified_difference(first, easy[0], second, easy[1])
    assert found.difference.value == pytest.approx(0, abs=0.02)
    assert found.difference.low < 0 < found.difference.high  # type: ignore[operator]
    assert (found.first, found.second) == (pytest.approx(0.7, abs=0.02), pytest.approx(0.7, abs=0.02))
    assert (found.strata, found.first_n, found.second_n) == (2, 40, 40)


def test_one_class_is_welchs_interval() -> None:
    first, second = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0.0, 4, 8, 12, 16])
    found = stratified_difference(first, np.zeros(6, int), second, np.zeros(5, int)).difference
    theirs = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_classes_count_the_same_and_those_of_one_side_not_at_all() -> None:
    first, of_first = np.array([1.0] * 6 + [3.0] * 2 + [9.0]), np.array([0] * 6 + [1] * 2 + [5])
    second, of_second = np.array([0.0] * 3 + [1.0] * 4 + [7.0]), np.array([0] * 3 + [1] * 4 + [8])
    found = stratified_difference(first, of_first, second, of_second)
    assert found.difference.value == pytest.approx(((1 - 0) + (3 - 1)) / 2)
    assert (found.strata, found.first_n, found.second_n) == (2, 8, 7)


def test_without_a_common_class_nothing_is_said() -> None:
    found = stratified_difference(np.ones(6), np.zeros(6, int), np.ones(6), np.ones(6, int))
    assert (found.difference, found.first, found.strata) == (Interval(None, None, None), None, 0)


def test_a_few_images_have_a_difference_and_no_interval() -> None:
    found = stratified_difference(np.arange(4.0), np.zeros(4, int), np.arange(9.0), np.zeros(9, int)).difference
    assert (found.value, found.low, found.high) == (-2.5, None, None)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("images", [8, 20])
def test_no_difference_within_classes_is_claimed_in_no_more_than_six_percent(kind: str, images: int) -> None:
    random, claimed = np.random.default_rng(0), 0
    for _ in range(800):
        of = [(random.random(images) < share).astype(int) for share in (0.7, 0.4)]
        first, second = (0.4 * of[side] + (side + 1) * DRAWS[kind](random, images) for side in (0, 1))
        found = stratified_difference(first, of[0], second, of[1]).difference
        claimed += found.low is not None and (found.low > 0 or found.high < 0)  # type: ignore[operator]
    assert claimed / 800 <= 0.068  # 6 % and one standard error

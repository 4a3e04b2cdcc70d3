"""Intervals of means: against scipy, against slow loops, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from diffprobe.statistics.intervals import Interval, clopper_pearson, cluster_mean, mean_intervals, skewed_t, skewed_t_p

DRAWS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "skewed": lambda random, shape: random.exponential(size=shape) - 1,
}


def hall(values: np.ndarray, mean: float) -> float:
    """Hall's (1992) corrected t of one sample for a mean, term by term."""
    n = len(values)
    skewness = stats.skew(values, bias=False)
    t = (values.mean() - mean) / (values.std(ddof=1) / np.sqrt(n))
    return float(t + skewness * t**2 / (3 * n**0.5) + skewness**2 * t**3 / (27 * n) + skewness / (6 * n**0.5))


def test_symmetric_values_have_students_interval() -> None:
    values = np.array([-3.0, -1, 0, 1, 3]) + 10
    (low,), (high,) = skewed_t(values.mean(), (values - values.mean())[None])
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 4, values.mean(), stats.sem(values)))


def test_skewed_values_have_the_wider_of_students_and_halls_ends() -> None:
    values = np.random.default_rng(1).exponential(size=9)
    found = mean_intervals(values[None])
    bounds, t = stats.t.interval(0.95, 8, values.mean(), stats.sem(values)), stats.t.ppf(0.975, 8)
    of_hall = [brentq(lambda mean, end=end: hall(values, mean) - end, -50, 50) for end in (t, -t)]
    assert found.low[0] == pytest.approx(min(bounds[0], of_hall[0]))
    assert found.high[0] == pytest.approx(max(bounds[1], of_hall[1]))
    assert found.high[0] > bounds[1] * 1.05


def test_p_is_below_five_percent_exactly_where_the_interval_leaves_out_zero() -> None:
    values = np.random.default_rng(0).exponential(size=(500, 7)) - 0.4
    mean = values.mean(1)
    low, high = skewed_t(mean, values - mean[:, None])
    p = skewed_t_p(mean, values - mean[:, None])
    outside = (low > 0) | (high < 0)
    assert (outside == (p < 0.05)).all()
    assert 20 < outside.sum() < 480


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("images", [5, 8, 20, 40])
def test_intervals_of_few_images_hold_the_mean_as_often_as_they_say(kind: str, images: int) -> None:
    found = mean_intervals(DRAWS[kind](np.random.default_rng(0), (20_000, images)))
    assert ((found.low <= 0) & (found.high >= 0)).mean() >= 0.93


def test_fewer_than_five_images_have_a_mean_and_no_interval() -> None:
    found = mean_intervals(np.array([[1.0, 2, 4, 7, np.nan], [1, 2, 4, 7, 9], [np.nan] * 5]))
    assert found.n.tolist() == [4, 5, 0]
    assert found.mean[:2] == pytest.approx([3.5, 4.6])
    assert np.isnan(found.low).tolist() == np.isnan(found.high).tolist() == [True, False, True]
    assert np.isnan(found.mean[2])


def test_missing_values_do_not_change_the_interval_of_the_others() -> None:
    values = np.random.default_rng(0).exponential(size=(3, 8))
    gaps = np.insert(values, [0, 4, 8], np.nan, axis=1)
    whole, found = mean_intervals(values), mean_intervals(gaps)
    np.testing.assert_allclose([found.low, found.high, found.mean], [whole.low, whole.high, whole.mean])


def test_values_of_zero_and_one_have_the_exact_interval_of_a_share() -> None:
    values = np.array([[1.0] * 8, [1, 1, 1, 1, 1, 1, 0, 0]])
    found = mean_intervals(values)
    for row, hits in enumerate((8, 6)):
        expected = stats.binomtest(hits, 8).proportion_ci(0.95, "exact")
        assert (found.low[row], found.high[row]) == pytest.approx((expected.low, expected.high))


def test_an_exact_interval_of_a_share_covers_every_share() -> None:
    for trials in (5, 8, 20, 40):
        low, high = clopper_pearson(np.arange(trials + 1), trials)
        for share in np.linspace(0.01, 0.99, 99):
            chance = stats.binom.pmf(np.arange(trials + 1), trials, share)
            assert chance[(low <= share) & (share <= high)].sum() >= 0.95


def test_the_mean_of_objects_equals_that_of_images_where_each_has_one() -> None:
    values = np.random.default_rng(0).exponential(size=12)
    found, plain = cluster_mean(values, np.arange(12)[::-1]), mean_intervals(values[None])
    assert (found.value, found.low, found.high) == pytest.approx((plain.mean[0], plain.low[0], plain.high[0]))


def test_copies_of_an_object_in_its_image_tell_nothing_more() -> None:
    values = np.random.default_rng(0).normal(size=10)
    once, often = cluster_mean(values, np.arange(10)), cluster_mean(np.repeat(values, 7), np.repeat(np.arange(10), 7))
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("clusters", [8, 20])
def test_means_over_unequal_clusters_hold_the_truth_as_often_as_they_say(kind: str, clusters: int) -> None:
    random, held = np.random.default_rng(2), 0
    for _ in range(800):
        of = np.repeat(np.arange(clusters), random.integers(1, 25, clusters))
        values = DRAWS[kind](random, clusters)[of] + DRAWS[kind](random, len(of))
        found = cluster_mean(values, of)
        held += found.low <= 0 <= found.high  # type: ignore[operator]
    assert held / 800 >= 0.92  # 93 % and more, less one standard error


def test_a_share_of_objects_is_as_wide_as_its_images_differ() -> None:
    of = np.repeat(np.arange(10), 6)
    mixed = np.tile([1.0, 1, 1, 0, 0, 1], 10)  # every image alike: worth up to 60 trials
    whole = np.repeat([1.0] * 6 + [0, 0, 1, 0], 6)  # an image hits or misses as a whole: worth 10 or less
    narrow, wide = cluster_mean(mixed, of), cluster_mean(whole, of)
    exact = stats.binomtest(40, 60).proportion_ci(0.95, "exact")
    assert narrow.high - narrow.low <= 1.5 * (exact.high - exact.low)  # type: ignore[operator]
    exact = stats.binomtest(7, 10).proportion_ci(0.95, "exact")
    assert 1 < (wide.high - wide.low) / (exact.high - exact.low) < 1.2  # type: ignore[operator]


def test_objects_that_all_hit_count_as_one_trial_an_image() -> None:
    found = cluster_mean(np.ones(30), np.repeat(np.arange(6), 5))
    assert found.low == pytest.approx(stats.binomtest(6, 6).proportion_ci(0.95, "exact").low)
    assert (found.value, found.high) == (1, 1)


def test_few_clusters_and_missing_values_have_no_interval() -> None:
    assert cluster_mean(np.arange(40.0), np.repeat(np.arange(4), 10)) == Interval(19.5, None, None)
    assert cluster_mean(np.array([np.nan, np.nan]), np.array([0, 1])) == Interval(None, None, None)
    assert cluster_mean(np.array([2.0, 4.0, np.nan]), np.array([3, 3, 9])) == Interval(3, None, None)

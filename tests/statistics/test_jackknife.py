from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from diffprobe.statistics.intervals import Interval, jackknife_interval, jackknife_p, left_out_parts, mean_intervals


def without_each(values: np.ndarray) -> np.ndarray:
    """The mean of all, and of all but each."""
    return np.array([values.mean(), *(np.delete(values, each).mean() for each in range(len(values)))])


def test_each_image_is_left_out_once_or_with_its_part() -> None:
    assert left_out_parts(4, 10).tolist() == [0, 1, 2, 3]
    parts = left_out_parts(10, 3, seed=2)
    assert parts.tolist() == left_out_parts(10, 3, seed=2).tolist() != left_out_parts(10, 3, seed=3).tolist()
    assert sorted(np.bincount(parts).tolist()) == [3, 3, 4]


def test_the_jackknife_of_a_mean_is_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).exponential(size=11)
    found, plain = jackknife_interval(without_each(values), 11), mean_intervals(values[None])
    assert (found.value, found.low, found.high) == pytest.approx((plain.mean[0], plain.low[0], plain.high[0]))


def test_a_statistic_of_few_images_has_no_interval() -> None:
    values = without_each(np.arange(10.0))
    assert jackknife_interval(values, 4) == Interval(4.5, None, None)
    assert np.isnan(jackknife_p(values, 4))
    values[3] = np.nan  # undefined without the third image
    assert jackknife_interval(values, 10) == Interval(4.5, None, None)
    assert jackknife_interval(np.full(11, np.nan), 10) == Interval(None, None, None)


def test_an_auc_is_judged_by_its_log_odds_and_stays_between_zero_and_one() -> None:
    values = np.array([0.97, *expit(logit(0.97) + np.linspace(-0.1, 0.1, 11))])
    found = jackknife_interval(values, 11, share=True)
    odds = logit(values)
    pulls = 10 * (odds[1:].mean() - odds[1:])
    half = stats.t.ppf(0.975, 10) * np.sqrt((pulls**2).sum() / 110)
    assert found.low == pytest.approx(expit(odds[0] - half), abs=1e-6)
    assert 0.5 < found.low < 0.97 < found.high < 1  # type: ignore[operator]


def test_an_auc_of_one_is_a_share_of_as_many_trials_as_images() -> None:
    found = jackknife_interval(np.ones(9), 8, share=True)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(stats.binomtest(8, 8).proportion_ci(0.95, "exact").low)
    assert jackknife_interval(np.full(9, 1 - 1e-16), 8, share=True).low == pytest.approx(found.low)


def test_p_is_one_sided() -> None:
    values = np.array([-1.0, 0, 1, 2, 2, 3, 4, 5])  # not skewed
    above, below = jackknife_p(without_each(values), 8), jackknife_p(without_each(-values), 8)
    assert above == pytest.approx(1 - below)
    assert above == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)

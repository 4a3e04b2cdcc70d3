"""Intervals of means, shares, jackknifed statistics and differences of groups, over images.

Most are Student's t, widened where values are skewed: of exponential values t covers 88 % with 5 images where it says
95 %. Hall (1992, JRSS B 54:221) takes the skewness out of t by a cubic that can be solved for the mean. The interval is
the smallest that holds both, and p the larger of both, so an interval leaves out a value exactly when p is below
1 - level. benchmarks/small_samples.py measures their coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import expit, logit

LEVEL = 0.95  # of every interval of this package but those that leads are made of
MINIMUM_IMAGES = 5  # with fewer, no interval keeps its level where values are skewed
SIGNIFICANT = 0.05  # of p, adjusted for its family
_MINIMUM_EFFECTIVE = 3  # images that an estimate of unequal ones may be worth; skewness needs more than two
_EDGE = 1e-9  # shares this near to 0 or 1 are 0 or 1, up to rounding


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its interval. All None where the value is undefined; `low` and `high` None where there is none."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float, low: float, high: float) -> Interval:
        """NaN become None."""
        if np.isnan(value):
            return cls(None, None, None)
        bounded = not (np.isnan(low) or np.isnan(high))
        return cls(float(value), float(low) if bounded else None, float(high) if bounded else None)


def skewed_t(
    value: ArrayLike, influences: np.ndarray, effective: ArrayLike | None = None, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends [...] for estimates that are, up to a remainder, means of one number an image.

    NaN where there are fewer than MINIMUM_IMAGES. An estimate that no image pulls is its own interval.

    Args:
        value: [...], the estimates.
        influences: [..., images], by how much each image pulls the estimate, times the number of images: for a mean
            its value less the mean. NaN do not count.
        effective: [...], how many equal images they are worth, where they do not count alike.
    """
    return ends(value, *_moments(influences, effective), level)


def ends(
    value: ArrayLike, error: np.ndarray, skewness: np.ndarray, freedom: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `skewed_t`, from standard error, skewness of the estimate and degrees of freedom, each [...]."""
    with np.errstate(invalid="ignore"):
        t = stats.t.ppf((1 + level) / 2, freedom)
        low = value - np.maximum(t, _unskewed(t, skewness)) * error
        high = value - np.minimum(-t, _unskewed(-t, skewness)) * error
    return low, high


def skewed_t_p(value: ArrayLike, influences: np.ndarray, effective: ArrayLike | None = None) -> np.ndarray:
    """Two-sided p of the hypothesis that what is estimated is 0; arguments as `skewed_t`, NaN where that has NaN."""
    error, skewness, freedom = _moments(influences, effective)
    value = np.asarray(value, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(error > 0, value / error, np.where(value == 0, 0, np.inf * np.sign(value)))
        # Hall's cubic; its slope is a square, so it keeps the order of t
        corrected = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    return 2 * stats.t.sf(np.fmin(np.abs(t), np.abs(corrected)), freedom)


def _moments(influences: np.ndarray, effective: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard error, skewness of the estimate, and degrees of freedom (NaN for too few images), each [...]."""
    there = ~np.isnan(influences)
    images = there.sum(-1)
    pulls = np.where(there, influences, 0.0)
    counted = images if effective is None else np.clip(effective, _MINIMUM_EFFECTIVE, images)
    squares, cubes = (pulls**2).sum(-1), (pulls**3).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(squares * counted / (counted - 1)) / images
        unbiased = np.sqrt(counted * (counted - 1.0)) / (counted - 2)
        skewness = np.where(squares > 0, cubes / squares**1.5 * unbiased, 0.0)
    return error, skewness, np.where(images >= MINIMUM_IMAGES, counted - 1.0, np.nan)


def _unskewed(t: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """The t that Hall's cubic takes to `t`."""
    rate = skewness / 3
    flat = np.abs(rate) < 1e-9
    safe = np.where(flat, 1.0, rate)
    return np.where(flat, t, (np.cbrt(1 + 3 * safe * (t - skewness / 6)) - 1) / safe)


def is_share(values: np.ndarray) -> np.ndarray:
    """[...]: whether all of values [..., images] are 0 or 1; NaN do not count."""
    return ((values == 0) | (values == 1) | np.isnan(values)).all(-1)


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's (1934) exact interval of a share, whose counts may be fractions; NaN below MINIMUM_IMAGES.

    It covers at least `level` for every share; Wilson's (1927) falls to 90 % and lower with 5 to 20 trials.
    """
    low, high = _exact(np.asarray(successes, float), np.asarray(trials, float), level)
    enough = np.asarray(trials) >= MINIMUM_IMAGES
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def _exact(found: np.ndarray, trials: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(found > 0, stats.beta.ppf(tail, found, trials - found + 1), 0.0)
        high = np.where(found < trials, stats.beta.ppf(1 - tail, found + 1, trials - found), 1.0)
    return low, high


class MeanIntervals(NamedTuple):
    """Of many keys, each [keys]: the mean over the `n` images with a value, NaN where there are none, and the ends of
    its interval, NaN where the images are too few."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def mean_intervals(values: np.ndarray, level: float = LEVEL) -> MeanIntervals:
    """Means of values [keys, images], NaN left out: `skewed_t`, or `clopper_pearson` where all values are 0 or 1."""
    n = (~np.isnan(values)).sum(1)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(values, 1) / n
    low, high = skewed_t(mean, values - mean[:, None], level=level)
    share = is_share(values) & (n > 0)
    if share.any():
        low[share], high[share] = clopper_pearson(np.nansum(values[share], 1), n[share], level)
    return MeanIntervals(mean, low, high, n)


def cluster_mean(values: np.ndarray, clusters: np.ndarray) -> Interval:
    """Mean of values [n] (NaN left out) of objects in clusters [n], any integers: images or videos.

    Each cluster pulls the mean by what leaving it out changes (the jackknife of a ratio, Cochran 1977, section 6.15).
    Values that are all 0 or 1 are a share of as many trials as the clusters are worth (Korn and Graubard 1998).
    """
    there = ~np.isnan(values)
    if not there.any():
        return Interval(None, None, None)
    values, number = values[there], np.unique(clusters[there], return_inverse=True)[1]
    sums, sizes = np.bincount(number, values), np.bincount(number).astype(float)
    mean, count = float(values.mean()), len(sizes)
    if count < MINIMUM_IMAGES:
        return Interval(mean, None, None)
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    influences = (count - 1) * (without.mean() - without)
    equal = float(sizes.sum() ** 2 / (sizes**2).sum())  # so many equal clusters are these worth (Kish 1965)
    if is_share(values):
        error = float(np.sqrt((influences**2).sum() / (count * (count - 1))))
        worth = float(count)  # also where each cluster has one trial, or all trials agree
        if (sizes > 1).any() and 0 < mean < 1 and error:
            tail = (1 + LEVEL) / 2
            shrunk = (stats.t.ppf(tail, max(len(values) - 1, 1)) / stats.t.ppf(tail, max(equal - 1, 1))) ** 2
            worth = min(mean * (1 - mean) / error**2 * shrunk, float(len(values)))
        low, high = _exact(np.asarray(mean * worth), np.asarray(worth), LEVEL)
    else:
        low, high = skewed_t(mean, influences, equal)
    return Interval.of(mean, float(low), float(high))


def left_out_parts(images: int, parts: int, seed: int = 0) -> np.ndarray:
    """The part [images] with which the jackknife leaves each image out, counted from 0.

    There are as many parts as images if these are no more than `parts`, else random ones of nearly equal size.
    """
    if images <= parts:
        return np.arange(images)
    return np.random.default_rng(seed).permutation(images) % parts


def jackknife_interval(values: np.ndarray, effective: int, *, share: bool = False) -> Interval:
    """The first of values [1 + parts] with the interval that the others, each without one part, give it.

    The part's influence is what leaving it out changes (Quenouille 1956; Tukey 1958; for statistics of pairs Arvesen
    1969, Ann. Math. Stat. 40:2076). There is no interval where `effective` is below MINIMUM_IMAGES, or the statistic is
    undefined without some part.

    Args:
        effective: how many parts the statistic rests on: those that have a pair of its smallest set.
        share: it lies in [0, 1], as an AUC does: judged by its log odds, and at 0 or 1 as a share of as many trials
            as parts.
    """
    value = float(values[0])
    if np.isnan(value):
        return Interval(None, None, None)
    if effective < MINIMUM_IMAGES or np.isnan(values).any():
        return Interval(value, None, None)
    if not share:
        low, high = skewed_t(value, _influences(values), effective)
        return Interval.of(value, float(low), float(high))
    edge = min(value, 1 - value) / 2
    if edge < _EDGE:
        low, high = clopper_pearson(round(value) * effective, effective)
        return Interval.of(value, float(low), float(high))
    odds = logit(np.clip(values, edge, 1 - edge))
    low, high = skewed_t(odds[0], _influences(odds), effective)
    return Interval.of(value, float(expit(low)), float(expit(high)))


def jackknife_p(values: np.ndarray, effective: int) -> float:
    """One-sided p of the hypothesis that the statistic is not above 0; NaN where there is no interval."""
    if np.isnan(values).any() or effective < MINIMUM_IMAGES:
        return np.nan
    two_sided = float(skewed_t_p(values[0], _influences(values), effective))
    return two_sided / 2 if values[0] > 0 else 1 - two_sided / 2


def _influences(values: np.ndarray) -> np.ndarray:
    """Of every part, [parts]."""
    without = values[1:]
    return (len(without) - 1) * (without.mean() - without)


@dataclass(frozen=True, slots=True)
class Stratified:
    """Means of both groups over the `strata` that both have, each stratum counting the same, and their difference.

    `first_n` and `second_n` are the images that count; the values are None where no stratum is common.
    """

    first: float | None
    second: float | None
    difference: Interval
    strata: int
    first_n: int
    second_n: int


def stratified_difference(
    first: np.ndarray, first_strata: np.ndarray, second: np.ndarray, second_strata: np.ndarray
) -> Stratified:
    """How far values [images] of the first group are above the second's within strata such as classes, on average.

    A mix of strata that differs between the groups does not count as a difference. Each group has one variance within
    its strata; degrees of freedom are Welch and Satterthwaite's (Welch 1947), skewness as in `skewed_t`. There is no
    interval where a group has fewer than MINIMUM_IMAGES images, the strata but one not counted.
    """
    common = np.intersect1d(first_strata, second_strata)
    if not len(common):
        return Stratified(None, None, Interval(None, None, None), 0, 0, 0)
    one, other = _Group.of(first, first_strata, common), _Group.of(second, second_strata, common)
    value, total = one.mean - other.mean, one.variance + other.variance
    if min(one.freedom, other.freedom) + 1 < MINIMUM_IMAGES:
        difference = Interval(value, None, None)
    elif total == 0:
        difference = Interval(value, value, value)
    else:
        freedom = total**2 / (one.variance**2 / one.freedom + other.variance**2 / other.freedom)
        skewness = (one.third - other.third) / total**1.5
        difference = Interval.of(
            value, *map(float, ends(value, np.sqrt(total), np.asarray(skewness), np.asarray(freedom), LEVEL))
        )
    return Stratified(one.mean, other.mean, difference, len(common), one.n, other.n)


@dataclass(frozen=True, slots=True)
class _Group:
    """Mean over strata, its variance with degrees of freedom, its third cumulant, and the number of images."""

    mean: float
    variance: float
    freedom: int
    third: float
    n: int

    @classmethod
    def of(cls, values: np.ndarray, strata: np.ndarray, common: np.ndarray) -> _Group:
        counted = np.isin(strata, common)
        values, place = values[counted], np.searchsorted(common, strata[counted])
        sizes = np.bincount(place, minlength=len(common))
        means = np.bincount(place, values, len(common)) / sizes
        off, share, freedom = values - means[place], 1 / len(common), len(values) - len(common)
        spread = (off**2).sum() / max(freedom, 1)
        # What the cubes of deviations from a stratum's own mean fall short of those from its true mean
        cubes = float(((sizes - 1) * (sizes - 2) / sizes).sum())
        third = (off**3).sum() / cubes if cubes else 0.0
        variance, cumulant = spread * (share**2 / sizes).sum(), third * (share**3 / sizes**2).sum()
        return cls(float(means.mean()), float(variance), freedom, float(cumulant), len(values))

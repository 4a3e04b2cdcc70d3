"""The difference of two means of other images, compared within strata such as classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffprobe.statistics.intervals import MINIMUM_IMAGES, Interval, ends


@dataclass(frozen=True, slots=True)
class Stratified:
    """Means of both groups over the strata that both have, each stratum counting the same, and their difference.

    `strata` is how many these are, `first_n` and `second_n` how many images; the rest None where there is no stratum.
    """

    first: float | None
    second: float | None
    difference: Interval
    strata: int
    first_n: int
    second_n: int


def stratified_difference(
    first: np.ndarray,
    first_strata: np.ndarray,
    second: np.ndarray,
    second_strata: np.ndarray,
    level: float = 0.95,
) -> Stratified:
    """How far the first group is above the second within strata, on average over the strata that both have.

    A mix of strata that differs between the groups does not count as a difference. Each group has one variance within
    its strata, and the degrees of freedom are Welch and Satterthwaite's (Welch 1947); skewness as in `intervals`. There
    is no interval where a group has fewer than MINIMUM_IMAGES images, the strata but one not counted.

    Args:
        first, second: values [images] of each group.
        first_strata, second_strata: the stratum of each, [images], integers.
    """
    common = np.intersect1d(first_strata, second_strata)
    one, other = _Group.of(first, first_strata, common), _Group.of(second, second_strata, common)
    if not len(common):
        return Stratified(None, None, Interval(None, None, None), 0, 0, 0)
    difference = Interval.of(one.mean - other.mean, *_ends(one, other, level))
    return Stratified(one.mean, other.mean, difference, len(common), one.n, other.n)


def _ends(one: _Group, other: _Group, level: float) -> tuple[float, float]:
    """Of the interval of the difference; NaN where a group is too small."""
    enough = all(group.freedom + 1 >= MINIMUM_IMAGES for group in (one, other))
    total, difference = one.variance + other.variance, one.mean - other.mean
    if not enough:
        return np.nan, np.nan
    if total == 0:
        return difference, difference
    freedom = total**2 / (one.variance**2 / one.freedom + other.variance**2 / other.freedom)
    skewness = (one.third - other.third) / total**1.5
    low, high = ends(difference, np.sqrt(total), np.asarray(skewness), np.asarray(freedom), level)
    return float(low), float(high)


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
        kept = np.isin(strata, common)
        values, place = values[kept], np.searchsorted(common, strata[kept])
        if not len(common):
            return cls(np.nan, np.nan, 0, np.nan, 0)
        sizes = np.bincount(place, minlength=len(common))
        means = np.bincount(place, values, len(common)) / sizes
        off, share, freedom = values - means[place], 1 / len(common), len(values) - len(common)
        spread = (off**2).sum() / max(freedom, 1)
        # What the cubes of deviations from a stratum's own mean fall short of those from its true mean
        cubes = float(((sizes - 1) * (sizes - 2) / sizes).sum())
        third = (off**3).sum() / cubes if cubes else 0.0
        return cls(
            float(means.mean()),
            float(spread * (share**2 / sizes).sum()),
            freedom,
            float(third * (share**3 / sizes**2).sum()),
            len(values),
        )

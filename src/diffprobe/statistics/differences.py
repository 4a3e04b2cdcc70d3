"""Tests of paired differences, their adjustment, steps at which a level is reached, and rankings of means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

from diffprobe.statistics.intervals import LEVEL, MINIMUM_IMAGES, SIGNIFICANT, mean_intervals, skewed_t, skewed_t_p

FLIPS = 9999
_EXACT = 12  # up to so many images, all flips are gone through
_ROWS_AT_ONCE = 1024
Item = TypeVar("Item")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment of the p-values of one family, in their order.

    The k-th smallest of m is multiplied by m - k + 1; none becomes smaller than one before it, or greater than 1.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted.tolist()


class PairedDifferences(NamedTuple):
    """Of many keys, each [keys]: the mean difference, its interval (NaN where images are too few), and p."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def paired_differences(
    differences: np.ndarray, shares: np.ndarray | None = None, *, seed: int = 0
) -> PairedDifferences:
    """Means of differences [keys, images], all defined.

    The interval is `skewed_t`. p is the larger of its p and of that of the sign flips, which are exact where
    differences are as often above as below 0.

    Args:
        shares: [keys], whether the differences are of values that are 0 or 1. Their interval is Bonett and Price's
            (2012, J. Educ. Behav. Stat. 37:479), and p that of the flips alone, which is McNemar's exact one.
    """
    keys, images = differences.shape
    mean = differences.mean(1)
    low, high = skewed_t(mean, differences - mean[:, None])
    p = sign_flip_p(differences, seed)
    binary = np.zeros(keys, bool) if shares is None else shares
    p = np.where(binary, p, np.fmax(p, skewed_t_p(mean, differences - mean[:, None])))
    if binary.any():
        above, below = ((sign * differences[binary] > 0).sum(1) for sign in (1, -1))
        up, down = (above + 1) / (images + 2), (below + 1) / (images + 2)
        middle, error = up - down, np.sqrt((up + down - (up - down) ** 2) / (images + 2))
        half = stats.norm.ppf((1 + LEVEL) / 2) * error if images >= MINIMUM_IMAGES else np.full(len(up), np.nan)
        low[binary], high[binary] = np.maximum(middle - half, -1), np.minimum(middle + half, 1)
    return PairedDifferences(mean, low, high, p)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided p [keys] of Fisher's (1935) sign flips of differences [keys, images].

    Exact, by all flips, up to 12 images; else p = (1 + #{flipped sum as large}) / (1 + FLIPS) by random ones. Sums that
    are the same up to rounding count as ties.
    """
    keys, images = differences.shape
    observed = np.abs(differences.sum(1)) - 1e-12 * np.abs(differences).sum(1)
    reached, number = np.zeros(keys, int), 0
    for signs in _flips(images, seed):
        reached += (np.abs(signs @ differences.T) >= observed).sum(0)
        number += len(signs)
    return reached / number if images <= _EXACT else (1 + reached) / (1 + number)


def _flips(images: int, seed: int) -> Iterator[np.ndarray]:
    """Signs [some, images]; of the exact ones half, since the other half has the same sums with the other sign."""
    if images <= _EXACT:
        bits = np.arange(2 ** max(images - 1, 0))[:, None] >> np.arange(images)
        yield 1.0 - 2 * (bits & 1)
        return
    random = np.random.default_rng(seed)
    for start in range(0, FLIPS, _ROWS_AT_ONCE):
        yield 2.0 * random.integers(0, 2, (min(_ROWS_AT_ONCE, FLIPS - start), images)) - 1


def images_needed(comparisons: int = 1) -> int:
    """With fewer images, none of so many comparisons can be shown after Holm's adjustment."""
    return max(MINIMUM_IMAGES, ceil(1 - log2(SIGNIFICANT / max(comparisons, 1))))


def best_of(items: Iterable[Item], mean: Callable[[Item], float], n: Callable[[Item], int]) -> Item:
    """The item with the best mean over `n` images; the first of equals. Raises ValueError without items.

    An image without a score counts as 0, which is what a map that says nothing gets by Dice and by correlation; that
    never makes a mean better. What has no score on half of the images of the fullest comes behind all that has.
    """
    found = list(items)
    most = max((n(item) for item in found), default=0)

    def rank(item: Item) -> tuple[bool, float]:
        return 2 * n(item) >= most, min(mean(item), mean(item) * n(item) / most if most else 0.0)

    return max(found, key=rank)


def well_covered(items: Iterable[Item], n: Callable[[Item], int]) -> list[Item]:
    """The items that are of at least half as many images or objects as the fullest."""
    found = list(items)
    most = max((n(item) for item in found), default=0)
    return [item for item in found if 2 * n(item) >= most]


@dataclass(frozen=True, slots=True)
class StepInterval:
    """Places among the steps, counted from 0; the number of steps for what is beyond the last.

    `low` and `high` None where there are too few images for an interval.
    """

    first: int
    low: int | None
    high: int | None


def steps_reaching(above: np.ndarray, level: float = LEVEL) -> StepInterval:
    """The first step at which the mean of above [steps, images] is not negative, with its interval.

    `above` is each image's score less the level that it is to reach, NaN where either is missing. A step with less than
    half of the images of the fullest one does not count, since its mean is of other images. The interval starts with
    the first step that is not shown to be below the level, and ends with the first that is shown to be above it, with
    the means of all later ones above it too.
    """
    found = mean_intervals(above, level)
    counts = _well_covered(found.n)
    reached = counts & (found.mean >= -1e-12)
    stays = np.logical_and.accumulate((reached | ~counts)[::-1])[::-1]
    first = _first(reached)
    if found.n.max(initial=0) < MINIMUM_IMAGES:
        return StepInterval(first, None, None)
    possible = counts & ~(found.high < -1e-12)  # unknown where too few images are left: not shown to be below
    sure = counts & (found.low >= -1e-12) & stays
    return StepInterval(first, min(_first(possible), first), max(_first(sure), first))


class StepDifference(NamedTuple):
    """By how many steps one curve reaches its level before another, with its interval, and p."""

    difference: int
    low: int
    high: int
    p: float
    n: int


def step_differences(
    above: np.ndarray, pairs: Sequence[tuple[int, int]], *, seed: int = 0
) -> list[StepDifference | None]:
    """By how many steps the first curve of each pair reaches its level before the second, on the images of both.

    above [curves, steps, images] is as that of `steps_reaching`. Images are drawn anew, with replacement and the same
    ones for both curves. Each time a curve's step is the first at which its mean is not negative. The interval is that
    of the percentiles of the differences; p is twice the share of draws in which the first is not earlier, or not
    later, whichever is smaller. Draws with the same step count against both, so p is rather too large
    (benchmarks/small_samples.py). None where a pair has no image.
    """
    there = np.isfinite(above[:, -1])
    drawn: dict[int, np.ndarray] = {}
    found: list[StepDifference | None] = []
    for first, second in pairs:
        both = there[first] & there[second]
        n = int(both.sum())
        if n and n not in drawn:
            drawn = {n: _drawn(n, seed)}  # the last one alone, since it may be large
        found.append(_step_difference(above[first][:, both], above[second][:, both], drawn[n]) if n else None)
    return found


def _drawn(images: int, seed: int) -> np.ndarray:
    """How often each image is drawn, [draws, images].

    As many are drawn as make the interval of a mean that of Student's t: less than there are, since the spread among
    few images is smaller than that among all, and known badly (Bickel, Goetze and van Zwet 1997 draw fewer).
    """
    degrees = max(images - 1, 1)
    few = degrees * (stats.norm.ppf((1 + LEVEL) / 2) / stats.t.ppf((1 + LEVEL) / 2, degrees)) ** 2
    return np.random.default_rng(seed).multinomial(max(round(float(few)), 1), np.full(images, 1 / images), FLIPS)


def _step_difference(first: np.ndarray, second: np.ndarray, drawn: np.ndarray) -> StepDifference:
    """Of two curves [steps, images]; drawn [draws, images]: how often each image is drawn."""

    def ahead(weights: np.ndarray) -> np.ndarray:
        return _steps_of_means(weights, second) - _steps_of_means(weights, first)

    found, images = ahead(drawn), first.shape[1]
    rarer = min((found <= 0).sum(), (found >= 0).sum())
    p = min(1.0, 2 * (1 + rarer) / (1 + len(found)))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return StepDifference(int(ahead(np.ones((1, images)))[0]), int(low), int(high), p, images)


def _steps_of_means(weights: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The first step at which the weighted mean of above [steps, images] is not negative, [draws]."""
    there = np.isfinite(above)
    totals, counts = weights @ np.where(there, above, 0.0).T, weights @ there.T
    reached = (totals >= -1e-12 * counts) & (counts > 0) & _well_covered(there.sum(1))
    return np.where(reached.any(1), reached.argmax(1), len(above))


def _well_covered(images: np.ndarray) -> np.ndarray:
    """Which steps have scores of at least half as many images as the fullest: else a mean is of other images."""
    return images * 2 >= images.max(initial=1)


def _first(there: np.ndarray) -> int:
    return int(there.argmax()) if there.any() else len(there)


def median_step(steps: np.ndarray) -> StepInterval:
    """The step by which half of the images are there, for steps [images]; what never is counts as beyond the last.

    The interval is between order statistics, by the binomial distribution (Conover 1999, section 3.2): exact whatever
    the distribution. It needs 6 images for 95 %.
    """
    interval = stats.quantile_test(steps, p=0.5).confidence_interval(LEVEL)
    low, high = (None if np.isnan(end) else int(end) for end in interval)
    return StepInterval(int(np.sort(steps)[(len(steps) - 1) // 2]), low, high)

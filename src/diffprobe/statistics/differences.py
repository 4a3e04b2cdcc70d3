"""Paired differences: is one score above another on the same images?

Many tests at once.

From which step on a mean is as high as a level, and when half of the images are there.

Which of several means is the best, where some are of fewer images than others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import TypeVar

import numpy as np
from scipy import stats

from diffprobe.statistics.intervals import MINIMUM_IMAGES, SIGNIFICANT, mean_intervals, skewed_t, skewed_t_p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment of the p-values of one family, in their order.

    The k-th smallest of m is multiplied by m - k + 1; none becomes smaller than one before it, or greater than 1.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted.tolist()


FLIPS = 9999
_EXACT = 12  # up to so many images, all flips are gone through
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class PairedDifferences:
    """Of many keys at once, each [keys]: the mean difference, its interval (NaN where images are too few), and p."""

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def paired_differences(
    differences: np.ndarray, shares: np.ndarray | None = None, *, level: float = 0.95, seed: int = 0
) -> PairedDifferences:
    """Means of differences [keys, images], all defined.

    The interval is `skewed_t`. p is the larger of its p and of that of the sign flips: the flips are exact where
    differences are as often above as below 0, `skewed_t` sees to skewed ones, and a claim needs both.

    Args:
        shares: [keys], whether the differences are of values that are 0 or 1. Their interval is Bonett and Price's
            (2012, J. Educ. Behav. Stat. 37:479), and p that of the flips alone, which is McNemar's exact one.
    """
    keys = len(differences)
    mean = differences.mean(1)
    low, high = skewed_t(mean, differences - mean[:, None], level=level)
    p = sign_flip_p(differences, seed)
    binary = np.zeros(keys, bool) if shares is None else shares
    skewed = skewed_t_p(mean, differences - mean[:, None])
    p = np.where(binary, p, np.fmax(p, skewed))
    if binary.any():
        low[binary], high[binary] = _of_shares(differences[binary], level)
    return PairedDifferences(mean, low, high, p)


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided p [keys] of Fisher's (1935) sign flips of differences [keys, images].

    Exact, by all flips, up to 12 images; else p = (1 + #{flipped sum as large}) / (1 + FLIPS) by random ones. A hair
    of tolerance: sums that are the same up to rounding count as ties.
    """
    keys, images = differences.shape
    observed = np.abs(differences.sum(1)) - 1e-12 * np.abs(differences).sum(1)
    reached = np.zeros(keys, int)
    number = 0
    for signs in _flips(images, seed):
        reached += (np.abs(signs @ differences.T) >= observed).sum(0)
        number += len(signs)
    if images <= _EXACT:
        return reached / number
    return (1 + reached) / (1 + number)


def smallest_p(images: int) -> float:
    """The smallest p that so many images can give: all differences on one side."""
    return 2.0 ** (1 - images) if 1 <= images <= _EXACT else 1 / (1 + FLIPS)


def images_needed(comparisons: int = 1) -> int:
    """With fewer images, none of so many comparisons can be shown after Holm's adjustment."""
    return max(MINIMUM_IMAGES, ceil(1 - log2(SIGNIFICANT / max(comparisons, 1))))


def _flips(images: int, seed: int) -> Iterator[np.ndarray]:
    """Signs [some, images]; of the exact ones half, since the other half has the same sums with the other sign."""
    if images <= _EXACT:
        bits = np.arange(2 ** max(images - 1, 0))[:, None] >> np.arange(images)
        yield 1.0 - 2 * (bits & 1)
        return
    random = np.random.default_rng(seed)
    for start in range(0, FLIPS, _ROWS_AT_ONCE):
        yield 2.0 * random.integers(0, 2, (min(_ROWS_AT_ONCE, FLIPS - start), images)) - 1


def _of_shares(differences: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends for differences [keys, images] of -1, 0 and 1; NaN below MINIMUM_IMAGES."""
    images = differences.shape[1]
    up, down = ((differences > 0).sum(1) + 1) / (images + 2), ((differences < 0).sum(1) + 1) / (images + 2)
    middle, error = up - down, np.sqrt((up + down - (up - down) ** 2) / (images + 2))
    half = stats.norm.ppf((1 + level) / 2) * error if images >= MINIMUM_IMAGES else np.full(len(up), np.nan)
    return np.maximum(middle - half, -1), np.minimum(middle + half, 1)


Item = TypeVar("Item")


def rank_value(mean: float, n: int, most: int) -> tuple[bool, float]:
    """What a mean over `n` images is ranked by (the larger the better) among others over up to `most` images.

    An image without a score counts as 0, which is what a map that says nothing gets by Dice and by correlation; that
    never makes a mean better. What has no score on half of the images comes behind all that has.
    """
    share = n / most if most else 0.0
    return 2 * n >= most, min(mean, mean * share)


def best_of(items: Iterable[Item], mean: Callable[[Item], float], n: Callable[[Item], int]) -> Item:
    """The item with the best mean by `rank_value`; the first of equals. Raises ValueError without items."""
    found = list(items)
    most = max((n(item) for item in found), default=0)
    return max(found, key=lambda item: rank_value(mean(item), n(item), most))


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


def steps_reaching(above: np.ndarray, level: float = 0.95) -> StepInterval:
    """The first step at which the mean of above [steps, images] is not negative, with its interval.

    `above` is each image's score less the level that is to be reached, NaN where either is missing. A step with less
    than half of the images of the fullest one does not count, since its mean is of other images.

    The interval holds the steps that the data do not speak against: it starts with the first step that is not shown to
    be below the level, and ends with the first that is shown to be above it, with the means of all later ones above it
    too. So each image is compared with its own level, and nothing is lost to how different images are.
    """
    found = mean_intervals(above, level)
    counts = found.n * 2 >= found.n.max(initial=1)
    reached = counts & (found.mean >= -1e-12)
    stays = np.logical_and.accumulate((reached | ~counts)[::-1])[::-1]
    first = _first(reached)
    if found.n.max(initial=0) < MINIMUM_IMAGES:
        return StepInterval(first, None, None)
    possible = counts & ~(found.high < -1e-12)  # unknown where too few images are left: not spoken against
    sure = counts & (found.low >= -1e-12) & stays
    return StepInterval(first, min(_first(possible), first), max(_first(sure), first))


def median_step(steps: np.ndarray, level: float = 0.95) -> StepInterval:
    """The step by which half of the images are there, for steps [images]; what never is counts as beyond the last.

    The interval is between order statistics, by the binomial distribution (Conover 1999, section 3.2): exact whatever
    the distribution. It needs 6 images for 95 %; there is none below.
    """
    ordered, images = np.sort(steps), len(steps)
    middle = int(ordered[(images - 1) // 2])
    cut = int(stats.binom.ppf((1 - level) / 2, images, 0.5))  # P(fewer than `cut` of the images before the median)
    if images < MINIMUM_IMAGES or cut < 1:
        return StepInterval(middle, None, None)
    return StepInterval(middle, int(ordered[cut - 1]), int(ordered[images - cut]))


def _first(there: np.ndarray) -> int:
    return int(there.argmax()) if there.any() else len(there)

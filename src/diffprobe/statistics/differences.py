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
    counts = found.n * 2 >= found.n.max(initial=1)
    reached = counts & (found.mean >= -1e-12)
    stays = np.logical_and.accumulate((reached | ~counts)[::-1])[::-1]
    first = _first(reached)
    if found.n.max(initial=0) < MINIMUM_IMAGES:
        return StepInterval(first, None, None)
    possible = counts & ~(found.high < -1e-12)  # unknown where too few images are left: not shown to be below
    sure = counts & (found.low >= -1e-12) & stays
    return StepInterval(first, min(_first(possible), first), max(_first(sure), first))


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

"""From which step on a mean is as high as a level, and when half of the images are there.

Which of several means is the best, where some are of fewer images than others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from diffprobe.statistics.intervals import MINIMUM_IMAGES, mean_intervals

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

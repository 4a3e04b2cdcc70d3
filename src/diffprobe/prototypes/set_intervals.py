"""Intervals of the four distance sets: images are left out one after the other, and the pairs follow.

An image of weight w carries its pairs with it: a pair within it weighs w, a pair of images i and j w_i w_j. Leaving an
image out is weight 0. (Arvesen 1969, Ann. Math. Stat. 40:2076; Snijders and Borgatti 1999, Connections 22(2), for
pairs.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from diffprobe.prototypes.by_image import by_image
from diffprobe.prototypes.sets import SETS
from diffprobe.prototypes.weighted_pairs import BINS, weighted_pairs
from diffprobe.statistics import Interval, jackknife_interval, jackknife_p, left_out_weights

PAIRS = tuple(combinations(SETS, 2))


@dataclass(frozen=True, slots=True)
class WeightedSets:
    """The sets by each weighting of the images: `weights` (of all pairs) and `means` [weightings, 4], as SETS.

    `aucs` [weightings, 6], as PAIRS: P(first < second) + P(equal) / 2. NaN where a set is empty. They come from
    histograms and are off by no more than `binning`, which is 0 where distances have few distinct values.
    """

    weights: np.ndarray
    means: np.ndarray
    aucs: np.ndarray
    binning: float


@dataclass(frozen=True, slots=True)
class SetIntervals:
    """Intervals over images: the mean of each set, and for each pair of sets (first, second) the difference of their
    means (second - first) and the AUC, P(first < second) + P(equal) / 2, off by no more than `binning`.

    `order_holds`: whether mean scsi < scdi < dcsi < dcdi; `order_p`: p of the hypothesis that it does not in truth, the
    largest of the one-sided p of the three steps (Berger 1982). None where a set is empty, `order_p` also without
    intervals.
    """

    means: dict[str, Interval]
    differences: dict[tuple[str, str], Interval]
    aucs: dict[tuple[str, str], Interval]
    order_holds: bool | None
    order_p: float | None
    binning: float


def set_intervals(
    distances: Tensor | np.ndarray,
    classes: ArrayLike,
    images: ArrayLike,
    *,
    parts: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> SetIntervals:
    """Jackknife intervals of the four sets, over images (`statistics.jackknife_interval`).

    A statistic rests on as many images as have a pair of its set, or of the smaller of its two sets; with fewer than
    `statistics.MINIMUM_IMAGES` of these it has no interval.

    Args:
        distances: [n, n], symmetric.
        classes, images: [n], integers.
        parts: images are left out one by one up to so many, and in so many parts (drawn by `seed`) beyond.

    Raises:
        UserError: as `by_image.checked`.
    """
    weights = left_out_weights(len(np.unique(np.asarray(images))), parts, seed)
    found = weighted_sets(distances, classes, images, weights)
    rests_on = (found.weights[1:] < found.weights[0]).sum(0)  # parts with pairs of each set

    def fewer(pair: tuple[str, str]) -> int:
        return int(min(rests_on[SETS.index(name)] for name in pair))

    def difference(pair: tuple[str, str]) -> np.ndarray:
        return found.means[:, SETS.index(pair[1])] - found.means[:, SETS.index(pair[0])]

    defined = bool(np.isfinite(found.means[0]).all())
    steps = [jackknife_p(difference(pair), fewer(pair)) for pair in pairwise(SETS)] if defined else [np.nan]
    return SetIntervals(
        means={
            name: jackknife_interval(found.means[:, at], int(rests_on[at]), level=level) for at, name in enumerate(SETS)
        },
        differences={pair: jackknife_interval(difference(pair), fewer(pair), level=level) for pair in PAIRS},
        aucs={
            pair: jackknife_interval(found.aucs[:, at], fewer(pair), share=True, level=level)
            for at, pair in enumerate(PAIRS)
        },
        order_holds=bool((np.diff(found.means[0]) > 0).all()) if defined else None,
        order_p=None if np.isnan(steps).any() else float(max(steps)),
        binning=found.binning,
    )


def weighted_sets(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike, counts: np.ndarray, *, bins: int = BINS
) -> WeightedSets:
    """The sets with image weights `counts` [weightings, images], images in the order of their numbers.

    Other arguments and errors as `set_intervals`; `bins` as in `weighted_pairs`.
    """
    sums, histograms, exact = weighted_pairs(by_image(distances, classes, images), counts, bins)
    weights = histograms.sum(1)
    with np.errstate(invalid="ignore"):
        means = sums / weights
        shares = histograms / weights[:, None]
        below = shares.cumsum(1) - shares / 2  # P(smaller) + P(equal) / 2
    pairs = [(SETS.index(a), SETS.index(b)) for a, b in PAIRS]
    aucs = np.stack([(below[a] * shares[b]).sum(0) for a, b in pairs], 1)
    # Pairs of one bin count as equal, one half each, and cannot be off by more than that
    one_bin = np.stack([(shares[a] * shares[b]).sum(0) for a, b in pairs], 1)
    binning = 0.0 if exact or np.isnan(one_bin).all() else float(np.nanmax(one_bin)) / 2
    return WeightedSets(weights.T, means.T, aucs, binning)

"""Cluster bootstrap of the four distance sets: images are resampled, and the pairs follow.

An image drawn w times carries its pairs with it: a pair within it counts w times, a pair of images i and j w_i w_j
times. (Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8; Snijders and Borgatti 1999,
Connections 22(2), for pairs.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from diffprobe.prototypes.by_image import by_image
from diffprobe.prototypes.sets import SETS
from diffprobe.prototypes.weighted_pairs import BINS, weighted_pairs
from diffprobe.statistics import resampling_counts

PAIRS = tuple(combinations(SETS, 2))
_ENOUGH = 0.9


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its percentile bootstrap interval.

    All None where the value is undefined; `low` and `high` None where it is in more than a tenth of the resamples.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class SetResamples:
    """The sets in each resample: `weights` (pairs, with their multiplicity) and `means` [resamples, 4], as SETS.

    `aucs` [resamples, 6], as PAIRS: P(first < second) + P(equal) / 2. NaN where a set is empty. They come from
    histograms and are off by no more than `binning`, which is 0 where distances have few distinct values.
    """

    weights: np.ndarray
    means: np.ndarray
    aucs: np.ndarray
    binning: float


@dataclass(frozen=True, slots=True)
class SetBootstrap:
    """Intervals over images: the mean of each set, and for each pair of sets (first, second) the difference of their
    means (second - first) and the AUC, P(first < second) + P(equal) / 2, off by no more than `binning`.

    `order_holds`: whether mean scsi < scdi < dcsi < dcdi; `order`: the share of the resamples in which it does. Both
    None where a set is empty (`order` also as in `Interval`).
    """

    means: dict[str, Interval]
    differences: dict[tuple[str, str], Interval]
    aucs: dict[tuple[str, str], Interval]
    order_holds: bool | None
    order: float | None
    binning: float
    resamples: int


def bootstrap_sets(
    distances: Tensor | np.ndarray,
    classes: ArrayLike,
    images: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> SetBootstrap:
    """Percentile intervals (Efron and Tibshirani 1993, chapter 13) of the four sets, over images.

    Args:
        distances: [n, n], symmetric.
        classes, images: [n], integers.

    Raises:
        UserError: as `by_image.checked`.
    """
    counts = resampling_counts(len(np.unique(np.asarray(images))), resamples, seed)
    observed = np.ones((1, counts.shape[1]))
    drawn = resample_sets(distances, classes, images, np.concatenate([observed, counts]))
    holds = np.all(np.diff(drawn.means) > 0, axis=1)
    defined = np.all(np.isfinite(drawn.means), axis=1)
    order = interval(np.where(defined, holds, np.nan), level)  # None where too few resamples have all sets
    return SetBootstrap(
        means={name: interval(drawn.means[:, at], level) for at, name in enumerate(SETS)},
        differences={
            (a, b): interval(drawn.means[:, SETS.index(b)] - drawn.means[:, SETS.index(a)], level) for a, b in PAIRS
        },
        aucs={pair: interval(drawn.aucs[:, at], level) for at, pair in enumerate(PAIRS)},
        order_holds=bool(holds[0]) if defined[0] else None,
        order=None if order.low is None else float(holds[1:][defined[1:]].mean()),
        binning=drawn.binning,
        resamples=resamples,
    )


def resample_sets(
    distances: Tensor | np.ndarray, classes: ArrayLike, images: ArrayLike, counts: np.ndarray, *, bins: int = BINS
) -> SetResamples:
    """The sets with image weights `counts` [resamples, images], images in the order of their numbers.

    Other arguments and errors as `bootstrap_sets`; `bins` as in `weighted_pairs`.
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
    return SetResamples(weights.T, means.T, aucs, binning)


def interval(values: np.ndarray, level: float) -> Interval:
    """The first of values [1 + resamples], with an interval from the others, NaN left out."""
    if np.isnan(values[0]):
        return Interval(None, None, None)
    drawn = values[1:][~np.isnan(values[1:])]
    if len(drawn) < _ENOUGH * (len(values) - 1) or len(drawn) == 0:
        return Interval(float(values[0]), None, None)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high))

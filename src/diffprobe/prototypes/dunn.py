"""Dunn's index of two sets of numbers: how far apart they are in units of their size, by several readings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffprobe.prototypes.set_statistics import deviations, mean_of

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """Values [n], ascending, with their mean and their size by each variant of the index."""

    values: np.ndarray
    mean: float
    sizes: dict[str, float]


def cluster(values: np.ndarray) -> Cluster:
    """What the indices need to know of a set. values: [n > 0], ascending.

    Sizes, by the name of the index: `dunn_paper` the radius, that is the largest deviation from the mean;
    `dunn_textbook` and `dunn_centroid_range` the range; `_halfrange` half of it; `_meanpair` the mean distance of two
    values; `_2mad` twice the mean absolute deviation from the mean; `_2std` twice the standard deviation (ddof 0).
    """
    n, mean, low, high = len(values), mean_of(values), float(values[0]), float(values[-1])
    squares = absolute = pairs = 0.0
    start = 0
    for part in deviations(values, mean):
        # The sum of x_j - x_i over i < j: the value of rank r (from 0) is the greater one of r pairs, the smaller of
        # n - 1 - r
        pairs += float((2 * np.arange(start, start + len(part)) - (n - 1)) @ part)
        squares += float(part @ part)
        absolute += float(np.abs(part).sum())
        start += len(part)
    sizes = {
        "dunn_paper": max(mean - low, high - mean),
        "dunn_textbook": high - low,
        "dunn_centroid_range": high - low,
        "dunn_centroid_halfrange": (high - low) / 2,
        "dunn_centroid_meanpair": 2 * pairs / (n * (n - 1)) if n > 1 else 0.0,
        "dunn_centroid_2mad": 2 * absolute / n,
        "dunn_centroid_2std": 2 * (squares / n) ** 0.5,
    }
    return Cluster(values, mean, sizes)


def dunn_indices(first: Cluster, second: Cluster) -> dict[str, float | None]:
    """Every variant: distance of the two sets over the larger of their sizes; None where both sizes are 0.

    The distance is that of the means, but for `dunn_textbook`, where it is that of the nearest values (Dunn 1973).
    `dunn_paper` is torchmetrics' DunnIndex. All of them fall as sets grow, since the extremes of more values lie
    further out: compare sets of like sizes.
    """
    found: dict[str, float | None] = {}
    for name in first.sizes:
        size = max(first.sizes[name], second.sizes[name])
        distance = nearest(first.values, second.values) if name == "dunn_textbook" else abs(first.mean - second.mean)
        found[name] = distance / size if size else None
    return found


def nearest(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest |a - b| of ascending values a [n] and b [m], in O(n log m) for the shorter one."""
    few, many = sorted((first, second), key=len)
    smallest = np.inf
    for start in range(0, len(few), _CHUNK):
        part = few[start : start + _CHUNK]
        at = np.searchsorted(many, part)
        for neighbours in (many[np.minimum(at, len(many) - 1)], many[np.maximum(at - 1, 0)]):
            smallest = min(smallest, float(np.abs(np.subtract(neighbours, part, dtype=np.float64)).min()))
    return smallest

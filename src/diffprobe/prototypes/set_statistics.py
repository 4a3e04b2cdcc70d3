"""One set of distances in a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SHAPIRO_LIMIT = 5000  # values; beyond it the approximation of Royston (1995) was never fitted
_CHUNK = 1 << 18  # values in float64 at a time


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Of `n` distances; all else None where there are none.

    `std` is of the population (ddof 0), `radius` the largest deviation from the mean, `shapiro_w` None below three
    values or when all are equal.
    """

    n: int
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    radius: float | None = None
    shapiro_w: float | None = None


def set_statistics(values: np.ndarray, *, seed: int = 0) -> SetStatistics:
    """Statistics of a set, summed up in float64. values: [n], ascending.

    Shapiro and Wilk's (1965) W tells of normality: 1 is a perfect fit. Of more than 5000 values it is that of 5000
    drawn with `seed`. Their p is left out: with thousands of values it rejects whatever the set is.
    """
    if not len(values):
        return SetStatistics(0)
    mean, low, high = mean_of(values), float(values[0]), float(values[-1])
    variance = sum(float(part @ part) for part in deviations(values, mean)) / len(values)
    return SetStatistics(
        len(values), mean, variance**0.5, low, high, max(mean - low, high - mean), _shapiro(values, seed)
    )


def mean_of(values: np.ndarray) -> float:
    """Mean of ascending values [n > 0]; between the ends whatever rounding says, so equal values deviate by 0."""
    return float(np.clip(values.mean(dtype=np.float64), float(values[0]), float(values[-1])))


def deviations(values: np.ndarray, mean: float) -> Iterator[np.ndarray]:
    """The values minus their mean, in order, piece by piece in float64."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK].astype(np.float64) - mean


def _shapiro(values: np.ndarray, seed: int) -> float | None:
    if len(values) < 3 or values[0] == values[-1]:
        return None
    from scipy.stats import shapiro

    if len(values) > SHAPIRO_LIMIT:
        drawn = np.random.default_rng(seed).choice(len(values), SHAPIRO_LIMIT, replace=False, shuffle=False)
        values = values[drawn]
        if values.min() == values.max():
            return None
    return float(shapiro(values.astype(np.float64)).statistic)

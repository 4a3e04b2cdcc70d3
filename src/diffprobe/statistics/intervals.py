"""The interval that most others are made of: Student's t, widened where the values are skewed.

Student's t is right for normal values and too narrow on one side for skewed ones: of exponential values it covers 88 %
with 5 images and 92 % with 20, where it says 95 %. Hall (1992, JRSS B 54:221) takes the skewness out of t by a cubic
that can be solved for the mean. The interval here is the smallest that holds both, and p the larger of both, so an
interval leaves out a value exactly when p is below 1 - level. benchmarks/small_samples.py measures what they keep.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

MINIMUM_IMAGES = 5  # with fewer, no interval keeps what it says where values are skewed
_FEWEST = 3  # images that an estimate of unequal ones may be worth; skewness needs more than two
SIGNIFICANT = 0.05  # of p, adjusted for its family: what is called shown


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
    value: ArrayLike, influences: np.ndarray, effective: ArrayLike | None = None, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends for estimates that are, up to a remainder, means of one number an image.

    Args:
        value: [...], the estimates.
        influences: [..., images], by how much each image pulls the estimate, times the number of images: for a mean
            its value less the mean. NaN and 0 do not count.
        effective: [...], how many equal images they are worth, where they do not count alike.

    Returns:
        [...], [...]; NaN where fewer than MINIMUM_IMAGES are there. An estimate that no image pulls is its own
        interval.
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
    nearer = np.fmin(np.abs(t), np.abs(corrected))
    return 2 * stats.t.sf(nearer, freedom)


def _moments(influences: np.ndarray, effective: ArrayLike | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standard error, skewness of the estimate, and degrees of freedom (NaN for too few images), each [...]."""
    there = ~np.isnan(influences)
    images = there.sum(-1)
    pulls = np.where(there, influences, 0.0)
    counted = images if effective is None else np.clip(effective, _FEWEST, images)
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

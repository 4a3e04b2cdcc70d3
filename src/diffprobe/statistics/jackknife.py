"""Statistics of pairs of objects: images are left out one after the other, with all pairs they are in.

What leaving out image i does to a statistic is how much the image pulls it (Quenouille 1956; Tukey 1958; Arvesen 1969,
Ann. Math. Stat. 40:2076, for statistics of pairs). Many images are left out in parts.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from diffprobe.statistics.intervals import MINIMUM_IMAGES, Interval, clopper_pearson, skewed_t, skewed_t_p

_EDGE = 1e-9  # shares this near to 0 or 1 are 0 or 1, up to rounding


def left_out_weights(images: int, parts: int, seed: int = 0) -> np.ndarray:
    """Weights [1 + parts, images]: all images, and all but those of one part; as many parts as images if these are no
    more than `parts`, else random ones of nearly equal size."""
    count = min(images, parts)
    number = np.arange(images)
    if count < images:
        number = np.random.default_rng(seed).permutation(images) % count
    return np.concatenate([np.ones((1, images)), number != np.arange(count)[:, None]]).astype(float)


def jackknife_interval(values: np.ndarray, effective: int, *, share: bool = False, level: float = 0.95) -> Interval:
    """The first of values [1 + parts] with the interval that the others, each without one part, give it.

    Args:
        effective: how many parts the statistic rests on: those that have a pair of its smallest set.
        share: it lies in [0, 1], as an AUC does: judged by its log odds, and at 0 or 1 as a share of as many trials
            as parts.

    Returns:
        Without ends where `effective` is below MINIMUM_IMAGES, or the statistic is undefined without some part.
    """
    value = float(values[0])
    if np.isnan(value):
        return Interval(None, None, None)
    if effective < MINIMUM_IMAGES or np.isnan(values).any():
        return Interval(value, None, None)
    if not share:
        low, high = skewed_t(value, _influences(values), effective, level)
        return Interval.of(value, float(low), float(high))
    edge = min(value, 1 - value) / 2
    if edge < _EDGE:
        low, high = clopper_pearson(round(value) * effective, effective, level)
        return Interval.of(value, float(low), float(high))
    odds = logit(np.clip(values, edge, 1 - edge))
    low, high = skewed_t(odds[0], _influences(odds), effective, level)
    return Interval.of(value, float(expit(low)), float(expit(high)))


def jackknife_p(values: np.ndarray, effective: int) -> float:
    """One-sided p of the hypothesis that the statistic is not above 0; NaN where there is no interval."""
    if np.isnan(values).any() or effective < MINIMUM_IMAGES:
        return np.nan
    two_sided = float(skewed_t_p(values[0], _influences(values), effective))
    return two_sided / 2 if values[0] > 0 else 1 - two_sided / 2


def _influences(values: np.ndarray) -> np.ndarray:
    """Of every part, [parts]."""
    without = values[1:]
    return (len(without) - 1) * (without.mean() - without)

"""Shares: means of values that are 0 or 1, of single images or of objects that share images."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from diffprobe.statistics.intervals import MINIMUM_IMAGES


def is_share(values: np.ndarray) -> np.ndarray:
    """[...]: whether all of values [..., images] are 0 or 1; NaN do not count."""
    return ((values == 0) | (values == 1) | np.isnan(values)).all(-1)


def clopper_pearson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Clopper and Pearson's (1934) exact interval of a share; both may be fractions.

    It covers at least `level` for every share and number of trials; Wilson's (1927) falls to 90 % and lower with 5 to
    20. NaN below MINIMUM_IMAGES.
    """
    number = np.asarray(trials, float)
    low, high = _exact(np.asarray(successes, float), number, level)
    enough = number >= MINIMUM_IMAGES
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def share_of_clusters(
    share: float, error: float, clusters: int, equal: float, trials: int, level: float = 0.95
) -> tuple[float, float]:
    """Clopper and Pearson's interval with as many trials as are worth what the clusters tell (Korn and Graubard 1998).

    Args:
        error: standard error of the share from differences between clusters.
        clusters, trials: how many there are.
        equal: how many equal clusters they are worth.

    Returns:
        NaN below MINIMUM_IMAGES clusters. Where all trials agree, each cluster counts as one trial.
    """
    if clusters < MINIMUM_IMAGES:
        return np.nan, np.nan
    if share <= 0 or share >= 1 or error == 0:
        worth = float(clusters)
    else:
        tail = (1 + level) / 2
        shrunk = (stats.t.ppf(tail, max(trials - 1, 1)) / stats.t.ppf(tail, max(equal - 1, 1))) ** 2
        worth = min(share * (1 - share) / error**2 * shrunk, float(trials))
    low, high = _exact(np.asarray(share * worth), np.asarray(worth), level)
    return float(low), float(high)


def _exact(found: np.ndarray, number: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(found > 0, stats.beta.ppf(tail, found, number - found + 1), 0.0)
        high = np.where(found < number, stats.beta.ppf(1 - tail, found + 1, number - found), 1.0)
    return low, high

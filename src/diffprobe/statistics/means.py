"""Means over images, and over objects that share images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffprobe.statistics.intervals import Interval, skewed_t
from diffprobe.statistics.shares import clopper_pearson, is_share, share_of_clusters


@dataclass(frozen=True, slots=True)
class Means:
    """Of many keys at once, each [keys]: the mean over the `n` images with a value, NaN where there are none, and the
    ends of its interval, NaN where the images are too few."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def mean_intervals(values: np.ndarray, level: float = 0.95) -> Means:
    """Means of values [keys, images], NaN left out: `skewed_t`, or `clopper_pearson` where all values are 0 or 1."""
    n = (~np.isnan(values)).sum(1)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(values, 1) / n
    low, high = skewed_t(mean, values - mean[:, None], level=level)
    share = is_share(values) & (n > 0)
    if share.any():
        low[share], high[share] = clopper_pearson(np.nansum(values[share], 1), n[share], level)
    return Means(mean, low, high, n)


def cluster_mean(values: np.ndarray, clusters: np.ndarray, level: float = 0.95) -> Interval:
    """Mean of values [n] (NaN left out) of objects in clusters [n], any integers: images or videos.

    Each cluster pulls the mean by what leaving it out changes (the jackknife of a ratio, Cochran 1977, section 6.15).
    Values that are all 0 or 1 are a share (`share_of_clusters`).
    """
    there = ~np.isnan(values)
    if not there.any():
        return Interval(None, None, None)
    values, number = values[there], np.unique(clusters[there], return_inverse=True)[1]
    sums, sizes = np.bincount(number, values), np.bincount(number).astype(float)
    mean, count = values.mean(), len(sizes)
    if count == 1:
        return Interval(float(mean), None, None)
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    influences = (count - 1) * (without.mean() - without)
    equal = float(sizes.sum() ** 2 / (sizes**2).sum())  # so many equal clusters are these worth (Kish 1965)
    if is_share(values):
        if (sizes == 1).all():
            low, high = (float(end) for end in clopper_pearson(sums.sum(), count, level))
        else:
            error = float(np.sqrt((influences**2).sum() / (count * (count - 1))))
            low, high = share_of_clusters(float(mean), error, count, equal, len(values), level)
    else:
        low, high = (float(end) for end in skewed_t(mean, influences, equal, level))
    return Interval.of(float(mean), low, high)

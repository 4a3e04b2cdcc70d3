"""How far objects are from their changed selves, beside how far pairs of objects are from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffprobe.prototypes.separation import Where
from diffprobe.prototypes.tables import DriftRow
from diffprobe.statistics import Interval, cluster_mean

SELF = "self"


@dataclass(frozen=True, slots=True)
class Pairs:
    """The distances of a set of pairs, ascending, their mean with its interval over images, and standard deviation."""

    values: np.ndarray
    mean: Interval
    std: float | None


def drift_rows(
    where: Where,
    change: str,
    strength: float,
    own: np.ndarray,
    images: np.ndarray,
    others: Mapping[str, Pairs],
) -> list[DriftRow]:
    """The row of 'self' and one for every other set.

    Args:
        own: [objects], distance of each to its changed self.
        images: [objects], the image or video of each, integers.
        others: by name.
    """
    mean = cluster_mean(own, images)
    std = float(own.std()) if len(own) else None
    keys = {**asdict(where), "change": change, "strength": strength}
    rows = [DriftRow(**keys, set=SELF, n=len(own), mean=mean.value, std=std, low=mean.low, high=mean.high, auc=None)]
    for name, pairs in others.items():
        found: dict[str, Any] = {
            "mean": pairs.mean.value,
            "std": pairs.std,
            "low": pairs.mean.low,
            "high": pairs.mean.high,
        }
        auc = chance_nearer(own, pairs.values)
        rows.append(DriftRow(**keys, set=name, n=len(pairs.values), **found, auc=auc))
    return rows


def chance_nearer(first: np.ndarray, second: np.ndarray) -> float | None:
    """P(a < b) + P(a = b) / 2 for a of `first` [n] and b of `second` [m], ascending; None where one is empty."""
    if not len(first) or not len(second):
        return None
    first = first.astype(second.dtype)
    beyond = 2 * len(second) - np.searchsorted(second, first) - np.searchsorted(second, first, "right")
    return float(beyond.mean() / (2 * len(second)))

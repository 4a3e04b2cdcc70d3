"""Does an object stay itself when its image is changed, or noised and denoised again? Beside other objects.

How far objects are from their changed selves, beside how far pairs of objects are from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.distances import paired_distances
from diffprobe.prototypes.matrices import DistanceConfig, PrototypeMatrix, all_distances
from diffprobe.prototypes.separation import DistanceKey, Resampling
from diffprobe.prototypes.set_intervals import set_intervals
from diffprobe.prototypes.sets import set_statistics, split_pairs
from diffprobe.prototypes.tables import DriftRow
from diffprobe.statistics import Interval, cluster_mean

SELF = "self"


@dataclass(frozen=True, slots=True)
class PairDistances:
    """The distances of a set of pairs, ascending, their mean with its interval over images, and standard deviation."""

    values: np.ndarray
    mean: Interval
    std: float | None


def drift_rows(
    key: DistanceKey,
    change: str,
    strength: float,
    own: np.ndarray,
    images: np.ndarray,
    others: Mapping[str, PairDistances],
) -> list[DriftRow]:
    """The row of 'self' and one for every other set.

    Args:
        own: [objects], distance of each to its changed self.
        images: [objects], the image or video of each, integers.
        others: by name.
    """
    mean = cluster_mean(own, images)
    std = float(own.std()) if len(own) else None
    keys = {**asdict(key), "change": change, "strength": strength}
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


@dataclass(frozen=True)
class ChangedPrototypes:
    """The same objects and inputs after a change. `step` is the one that is held against the unchanged ones."""

    change: str
    strength: float
    prototypes: Prototypes
    step: int


def study_drift(
    unchanged: Prototypes,
    changed: Sequence[ChangedPrototypes],
    model: str,
    distance_config: DistanceConfig,
    resampling: Resampling,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[DriftRow]:
    """For every input, measure, change and strength: an object against its changed self, beside the four sets of pairs
    of unchanged objects. Objects that a change pushes out of their picture do not count there.

    Args:
        unchanged: at one step.

    Raises:
        UserError: fewer than two objects, or a measure that a prototype has no distance by.
    """
    rows = []
    for matrix, distances in all_distances(unchanged, model, distance_config):
        sets = _sets(matrix, distances, resampling)
        group = next(group for group in unchanged.inputs if group.name == matrix.key.layer)
        for each in changed:
            after = each.prototypes.matrix(group, each.step)[matrix.rows]
            there = after.isfinite().all(1)
            own = paired_distances(
                matrix.values[there],
                after[there],
                matrix.key.measure,
                precision=distance_config.dtype,
                budget=distance_config.budget,
            ).numpy()
            rows += drift_rows(matrix.key, each.change, each.strength, own, matrix.images[there.numpy()], sets)
        log(f"{matrix.key.layer}, {matrix.key.measure}: {len(matrix.rows)} objects, {len(changed)} changes")
    return rows


def _sets(matrix: PrototypeMatrix, distances: Tensor, resampling: Resampling) -> dict[str, PairDistances]:
    values = split_pairs(distances, matrix.classes, matrix.images)
    intervals = set_intervals(
        distances, matrix.classes, matrix.images, parts=resampling.resamples, seed=resampling.seed
    )
    return {
        name: PairDistances(of_set, intervals.means[name], set_statistics(of_set).std)
        for name, of_set in values.items()
    }

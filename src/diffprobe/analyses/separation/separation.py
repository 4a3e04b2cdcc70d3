"""Are objects of one class nearer to each other than objects of two? For every input, step and measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.histograms import SetHistogram
from diffprobe.prototypes.matrices import DistanceConfig, PrototypeMatrix, all_distances
from diffprobe.prototypes.retrieval import neighbours
from diffprobe.prototypes.separation import DistanceKey, Resampling, separate
from diffprobe.prototypes.tables import SetRow, TestRow
from diffprobe.statistics import holm


@dataclass(frozen=True)
class NearestObjects:
    """The objects of other images that are nearest to every object, at one input, step and measure.

    Attributes:
        objects: [queries], which objects of all.
        neighbours: [queries, k], nearest first; distances: the same shape.
    """

    key: DistanceKey
    objects: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray


@dataclass
class SeparationResults:
    """Plain tables; `nearest` is that of the input at which the nearest objects tell the class best."""

    sets: list[SetRow] = field(default_factory=list)
    tests: list[TestRow] = field(default_factory=list)
    histograms: list[SetHistogram] = field(default_factory=list)
    nearest: NearestObjects | None = None


def study_separation(
    prototypes: Prototypes,
    model: str,
    distance_config: DistanceConfig,
    resampling: Resampling,
    *,
    shown: int = 5,
    log: Callable[[str], None] = lambda line: None,
) -> SeparationResults:
    """Everything that is asked of the distances between prototypes, for each input, step and measure.

    Args:
        shown: how many nearest objects are looked up for each.

    Raises:
        UserError: fewer than two objects, or a measure that a prototype has no distance by.
    """
    findings, best = SeparationResults(), -np.inf
    for matrix, distances in all_distances(prototypes, model, distance_config):
        found = separate(matrix.key, distances, matrix.classes, matrix.images, resampling)
        findings.sets += found.sets
        findings.tests += found.tests
        findings.histograms += found.histograms
        score = next((row.value for row in found.tests if row.statistic == "mean_average_precision"), None)
        if score is not None and score > best:
            findings.nearest, best = _nearest(matrix, distances, shown), score
        log(f"{matrix.key.layer}, t = {matrix.key.timestep:g}, {matrix.key.measure}: {len(matrix.rows)} objects")
    findings.tests = _with_holm_over_inputs(findings.tests)
    return findings


def _nearest(matrix: PrototypeMatrix, distances: Tensor, shown: int) -> NearestObjects:
    """Of the objects that have so many in other images."""
    found = neighbours(distances, matrix.images, shown)
    queries = np.flatnonzero((found >= 0).all(1))
    found = found[queries]
    near = np.take_along_axis(distances[queries].numpy(), found, 1)
    return NearestObjects(matrix.key, matrix.rows[queries], matrix.rows[found], near)


def _with_holm_over_inputs(tests: Sequence[TestRow]) -> list[TestRow]:
    """The rows with Holm's p of each permutation test, and of the order, over all inputs and steps of a measure."""
    families: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(tests):
        if (row.statistic.startswith("permutation_") or row.statistic == "order_holds") and row.p is not None:
            families.setdefault((row.measure, row.statistic), []).append(place)
    adjusted = list(tests)
    for places in families.values():
        for place, p in zip(places, holm([tests[at].p or 0.0 for at in places]), strict=True):
            adjusted[place] = replace(tests[place], p_holm=p)
    return adjusted

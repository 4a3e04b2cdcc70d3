"""The four sets of every distance matrix: statistics, tests and retrieval, as rows of sets.csv and tests.csv.

docs/statistics.md explains each statistic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import log10
from typing import Any

import numpy as np

from diffprobe.prototypes.collecting import DistanceKey, PrototypeDistances, Prototypes
from diffprobe.prototypes.distances import DistanceConfig
from diffprobe.prototypes.pair_tests import pair_tests
from diffprobe.prototypes.resampling import Resampling, SetIntervals, between_images, set_intervals, within_images
from diffprobe.prototypes.retrieval import neighbours, retrieve
from diffprobe.prototypes.sets import DistanceMatrix, SetHistogram, set_histograms, set_statistics, split_pairs
from diffprobe.statistics.differences import holm
from diffprobe.statistics.intervals import Interval

NEAREST = 5  # objects that are shown beside an object


@dataclass(frozen=True, slots=True)
class SetRow(DistanceKey):
    """sets.csv: the distances of one set of pairs. Values are None where the set is empty.

    `std` is of the population (ddof 0), `radius` the largest deviation from the mean; `low` and `high` bound the mean
    over images.
    """

    set: str
    n: int
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    radius: float | None
    shapiro_w: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class TestRow(DistanceKey):
    """tests.csv: one statistic of a pair of sets, or of all objects (`set_a` and `set_b` empty)."""

    __test__ = False  # for pytest, which would take it for one of its own

    set_a: str
    set_b: str
    statistic: str
    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    log10_p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class NearestObjects:
    """The nearest objects of other images.

    Attributes:
        objects: [queries], places among all objects.
        neighbours: [queries, k], nearest first; distances: the same shape.
    """

    objects: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray


@dataclass
class SeparationResults:
    """Rows of the tables; `nearest` is of the matrix with the highest mean average precision."""

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
    log: Callable[[str], None] = lambda line: None,
) -> SeparationResults:
    """Statistics of the distances between prototypes, for each layer group, step and measure.

    p of the permutation tests and of the order are adjusted (Holm) over the layer groups and steps of a measure.

    Raises:
        UserError: as `Prototypes.distances`.
    """
    results, best = SeparationResults(), -np.inf
    for each in prototypes.distances(model, distance_config):
        found = separate(each.key, each.matrix, resampling)
        results.sets += found.sets
        results.tests += found.tests
        results.histograms += found.histograms
        precision = next(row.value for row in found.tests if row.statistic == "mean_average_precision")
        if precision is not None and precision > best:
            results.nearest, best = _nearest(each), precision
        log(f"{each.key.layer}, t = {each.key.timestep:g}, {each.key.measure}: {len(each.rows)} objects")
    results.tests = _with_holm(results.tests)
    return results


def _nearest(found: PrototypeDistances) -> NearestObjects:
    """Of the objects that have as many as `NEAREST` in other images."""
    near = neighbours(found.matrix.distances, found.matrix.images, NEAREST)
    queries = np.flatnonzero((near >= 0).all(1))
    distances = np.take_along_axis(found.matrix.distances[queries].numpy(), near[queries], 1)
    return NearestObjects(found.rows[queries], found.rows[near[queries]], distances)


def _with_holm(tests: Sequence[TestRow]) -> list[TestRow]:
    families: dict[tuple[str, str], list[int]] = {}
    for place, row in enumerate(tests):
        if (row.statistic.startswith("permutation_") or row.statistic == "order_holds") and row.p is not None:
            families.setdefault((row.measure, row.statistic), []).append(place)
    adjusted = list(tests)
    for places in families.values():
        for place, p in zip(places, holm([tests[at].p or 0.0 for at in places]), strict=True):
            adjusted[place] = replace(tests[place], p_holm=p)
    return adjusted


def separate(key: DistanceKey, matrix: DistanceMatrix, resampling: Resampling) -> SeparationResults:
    """The four sets of pairs, what tells them apart, and retrieval, for one matrix."""
    seed = resampling.seed
    values = split_pairs(matrix)
    intervals = set_intervals(matrix, parts=resampling.resamples, seed=seed)
    sets = []
    for name, of_set in values.items():
        statistics, mean = asdict(set_statistics(of_set, seed=seed)), intervals.means[name]
        sets.append(SetRow(**asdict(key), set=name, **statistics, low=mean.low, high=mean.high))
    tests = list(_test_rows(key, matrix, values, intervals, resampling))
    return SeparationResults(sets, tests, set_histograms(values, key.layer, key.step, key.measure))


def _test_rows(
    key: DistanceKey,
    matrix: DistanceMatrix,
    values: dict[str, np.ndarray],
    intervals: SetIntervals,
    resampling: Resampling,
) -> Iterator[TestRow]:
    def row(
        statistic: str,
        value: float | None,
        pair: tuple[str, str] = ("", ""),
        interval: Interval | None = None,
        **p: Any,
    ) -> TestRow:
        low, high = (interval.low, interval.high) if interval else (None, None)
        names = {"set_a": pair[0], "set_b": pair[1], "statistic": statistic}
        return TestRow(**asdict(key), **names, value=value, low=low, high=high, **p)

    for test in pair_tests(values):
        pair = (test.set_a, test.set_b)
        interval = intervals.aucs[pair] if test.statistic in ("auc", "cliffs_delta") else None
        if interval and test.statistic == "cliffs_delta" and interval.low is not None and interval.high is not None:
            interval = Interval(test.value, 2 * interval.low - 1, 2 * interval.high - 1)
        yield row(test.statistic, test.value, pair, interval, p=test.p, log10_p=test.log10_p, p_holm=test.p_holm)
    for pair, interval in intervals.differences.items():
        if interval.value is not None:
            yield row("mean_difference", interval.value, pair, interval)
    for pair, name, permuted in (
        (("scdi", "dcdi"), "between", between_images),
        (("scsi", "dcsi"), "within", within_images),
    ):
        found = permuted(matrix, resampling.permutations, resampling.seed)
        log10_p = None if found.p is None else log10(found.p)
        yield row(f"permutation_{name}_images", found.statistic, pair, p=found.p, log10_p=log10_p)
    for name, interval in retrieve(matrix, seed=resampling.seed).items():
        yield row(name, interval.value, interval=interval)
    holds = None if intervals.order_holds is None else float(intervals.order_holds)
    yield row("order_holds", holds, p=intervals.order_p)

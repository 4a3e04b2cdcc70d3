"""Everything that is asked of one matrix of distances, as rows of sets.csv and tests.csv.

The rows of the tables that analyses of prototypes leave; docs/statistics.md says what each statistic is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import log10
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from diffprobe.files import Step
from diffprobe.prototypes.pair_tests import pair_tests
from diffprobe.prototypes.permutation import PermutationTest, between_images, within_images
from diffprobe.prototypes.retrieval import retrieve
from diffprobe.prototypes.set_intervals import SetIntervals, set_intervals
from diffprobe.prototypes.sets import SetHistogram, set_histograms, set_statistics, split_pairs
from diffprobe.ranges import Number


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """objects.csv: an object with a prototype. `area` is its share of the image's pixels."""

    object: str
    image: str
    label: str
    area: float
    dataset: str
    sequence: str
    frame: int
    instance: int


@dataclass(frozen=True, slots=True)
class SetRow:
    """sets.csv: the distances of one set of pairs. Values are None where the set is empty.

    `std` is of the population (ddof 0), `radius` the largest deviation from the mean; `low` and `high` bound the mean
    over images.
    """

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
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
class TestRow:
    """tests.csv: one statistic of a pair of sets, or of all objects (`set_a` and `set_b` empty)."""

    __test__ = False  # for pytest, which would take it for one of its own

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
    set_a: str
    set_b: str
    statistic: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    log10_p: float | None
    p_holm: float | None


@dataclass(frozen=True, slots=True)
class DriftRow:
    """drift.csv: distances of objects to themselves after a change ('self'), beside other sets of pairs.

    `auc` is the chance that an object is nearer to its changed self than a pair of the set is to each other.
    """

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str
    change: str
    strength: float
    set: str
    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    auc: float | None


@dataclass(frozen=True, slots=True)
class VanishedRow:
    """vanished.csv: an object without a prototype, since no cell of a grid belongs to it (`change` made it so)."""

    object: str
    height: int
    width: int
    change: str
    strength: float | None


@dataclass(frozen=True, slots=True)
class DistanceKey:
    """Of what the distances are: the first cells of every row."""

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str


@dataclass(frozen=True, slots=True)
class Resampling:
    """How much of it: at most so many resamples with images left out for intervals, permutations of labels for p, and
    the seed of both."""

    resamples: Annotated[int, Number(19, 100_000)] = 1000  # the fewest permutations with which p can be 0.05
    permutations: Annotated[int, Number(19, 100_000)] = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Separation:
    """What one matrix of distances says."""

    sets: list[SetRow]
    tests: list[TestRow]
    histograms: list[SetHistogram]


def separate(
    key: DistanceKey, distances: Tensor, classes: np.ndarray, images: np.ndarray, resampling: Resampling
) -> Separation:
    """The four sets of pairs, what tells them apart, and how well the nearest objects tell an object's class.

    Args:
        distances: [objects, objects], symmetric, finite.
        classes, images: [objects], integers.
    """
    values = split_pairs(distances, classes, images)
    seed = resampling.seed
    intervals = set_intervals(distances, classes, images, parts=resampling.resamples, seed=seed)
    sets = []
    for name, of_set in values.items():
        interval = intervals.means[name]
        statistics = asdict(set_statistics(of_set, seed=seed))
        sets.append(SetRow(**asdict(key), set=name, **statistics, low=interval.low, high=interval.high))
    tests = [
        *_pair_rows(key, values, intervals),
        *_difference_rows(key, intervals),
        _permutation_row(
            key,
            ("scdi", "dcdi"),
            "between",
            between_images(distances, classes, images, resampling.permutations, seed),
        ),
        _permutation_row(
            key, ("scsi", "dcsi"), "within", within_images(distances, classes, images, resampling.permutations, seed)
        ),
        *_retrieval_rows(key, distances, classes, images, resampling),
        _order_row(key, intervals),
    ]
    histograms = set_histograms(values, key.layer, key.step, key.measure)
    return Separation(sets, tests, histograms)


def _row(
    key: DistanceKey,
    pair: tuple[str, str],
    statistic: str,
    value: float | None,
    **some: float | None,
) -> TestRow:
    """A row whose other cells are empty."""
    found: dict[str, Any] = {"low": None, "high": None, "p": None, "log10_p": None, "p_holm": None, **some}
    return TestRow(**asdict(key), set_a=pair[0], set_b=pair[1], statistic=statistic, value=value, **found)


def _pair_rows(key: DistanceKey, values: dict[str, np.ndarray], intervals: SetIntervals) -> Iterator[TestRow]:
    """The statistics of pairs of sets; AUC and Cliff's delta with intervals over images."""
    for test in pair_tests(values):
        pair = (test.set_a, test.set_b)
        low = high = None
        if test.statistic in ("auc", "cliffs_delta"):
            interval = intervals.aucs[pair]
            low, high = interval.low, interval.high
            if test.statistic == "cliffs_delta" and low is not None and high is not None:
                low, high = 2 * low - 1, 2 * high - 1
        yield _row(
            key,
            pair,
            test.statistic,
            test.value,
            low=low,
            high=high,
            p=test.p,
            log10_p=test.log10_p,
            p_holm=test.p_holm,
        )


def _difference_rows(key: DistanceKey, intervals: SetIntervals) -> Iterator[TestRow]:
    for pair, interval in intervals.differences.items():
        if interval.value is not None:
            yield _row(key, pair, "mean_difference", interval.value, low=interval.low, high=interval.high)


def _permutation_row(key: DistanceKey, pair: tuple[str, str], how: str, test: PermutationTest) -> TestRow:
    return _row(
        key,
        pair,
        f"permutation_{how}_images",
        test.statistic,
        p=test.p,
        log10_p=None if test.p is None else log10(test.p),
    )


def _retrieval_rows(
    key: DistanceKey, distances: Tensor, classes: np.ndarray, images: np.ndarray, resampling: Resampling
) -> Iterator[TestRow]:
    found = retrieve(distances, classes, images, seed=resampling.seed)
    for name, interval in found.intervals.items():
        yield _row(key, ("", ""), name, interval.value, low=interval.low, high=interval.high)


def _order_row(key: DistanceKey, intervals: SetIntervals) -> TestRow:
    """Whether scsi < scdi < dcsi < dcdi by means; p of the hypothesis that it does not."""
    holds = None if intervals.order_holds is None else float(intervals.order_holds)
    return _row(key, ("", ""), "order_holds", holds, p=intervals.order_p)

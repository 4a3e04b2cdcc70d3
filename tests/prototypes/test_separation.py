"""One matrix of distances gives the rows of all tables, and they agree with each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffprobe.prototypes.collecting import DistanceKey
from diffprobe.prototypes.distances import distance_matrix
from diffprobe.prototypes.resampling import Resampling
from diffprobe.prototypes.separation import SeparationResults, separate
from diffprobe.prototypes.sets import DistanceMatrix
from tests.prototypes.worked_examples import CLASSES, IMAGES, PROTOTYPES

WHERE = DistanceKey("pocket", "mid", 0, 0.0, "pearson")
FEW = Resampling(resamples=200, permutations=200, seed=0)


def separated(vectors, classes, images, resampling: Resampling = FEW) -> SeparationResults:
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    distances = distance_matrix(vectors, "pearson", precision=torch.float64)
    return separate(WHERE, DistanceMatrix(distances, classes, images), resampling)


def value(found: SeparationResults, statistic: str, first: str = "", second: str = "") -> float | None:
    (row,) = (row for row in found.tests if (row.statistic, row.set_a, row.set_b) == (statistic, first, second))
    return row.value


def test_six_objects_give_the_numbers_worked_by_hand() -> None:
    found = separated(PROTOTYPES, CLASSES, IMAGES)
    assert {row.set: row.n for row in found.sets} == {"scsi": 1, "scdi": 5, "dcsi": 3, "dcdi": 6}
    means = {row.set: row.mean for row in found.sets}
    assert means == pytest.approx({"scsi": 0.183503, "scdi": 0.833556, "dcsi": 1.393911, "dcdi": 1.010594}, abs=5e-7)
    assert value(found, "dunn_paper", "scsi", "scdi") == pytest.approx(0.977408, abs=5e-7)
    assert value(found, "kruskal", "dcsi", "dcdi") == pytest.approx(1.066667, abs=5e-7)
    assert value(found, "auc", "dcsi", "dcdi") == pytest.approx(0.277778, abs=5e-7)
    assert value(found, "silhouette") == pytest.approx(0.295266, abs=5e-7)
    assert value(found, "mean_average_precision") == pytest.approx(0.722222, abs=5e-7)
    assert value(found, "knn_accuracy") == pytest.approx(4 / 6)
    assert value(found, "order_holds") == 0  # dcsi is further apart than dcdi


def test_separate_classes_are_found_separate_and_shuffled_ones_are_not() -> None:
    random = np.random.default_rng(0)
    classes, images = random.integers(0, 3, 90), np.arange(90) // 3
    centres = 3 * random.normal(size=(3, 12))
    vectors = centres[classes] + random.normal(size=(90, 12))
    real, null = separated(vectors, classes, images), separated(vectors, random.permutation(classes), images)
    for found, low, high in ((real, 0.9, 1.0), (null, 0.4, 0.6)):
        auc = value(found, "auc", "scdi", "dcdi")
        assert auc is not None
        assert low <= auc <= high
    by_name = {row.statistic: row for row in real.tests if row.set_a in ("", "scdi") and row.set_b in ("", "dcdi")}
    assert by_name["permutation_between_images"].p == pytest.approx(1 / 201)
    assert by_name["permutation_between_images"].value == pytest.approx(by_name["auc"].value, abs=1e-6)
    assert by_name["auc"].low > 0.8  # type: ignore[operator]
    assert by_name["cliffs_delta"].value == pytest.approx(2 * by_name["auc"].value - 1)
    assert by_name["cliffs_delta"].low == pytest.approx(2 * by_name["auc"].low - 1)
    (shuffled,) = (row for row in null.tests if row.statistic == "permutation_between_images")
    assert shuffled.p > 0.05  # type: ignore[operator]


def test_intervals_hold_their_values_and_histograms_count_every_pair() -> None:
    random = np.random.default_rng(1)
    found = separated(random.normal(size=(60, 8)), random.integers(0, 2, 60), np.arange(60) // 3)
    for row in found.sets:
        assert row.low < row.mean < row.high  # type: ignore[operator]
    assert {item.set: item.pairs for item in found.histograms} == {row.set: row.n for row in found.sets}


def test_sets_without_pairs_leave_cells_empty_and_no_rows_of_pairs() -> None:
    random = np.random.default_rng(2)
    found = separated(random.normal(size=(20, 8)), random.integers(0, 2, 20), np.arange(20))  # one object an image
    empty = {row.set: row for row in found.sets if row.n == 0}
    assert set(empty) == {"scsi", "dcsi"}
    assert all(row.mean is None and row.low is None for row in empty.values())
    pairs = {(row.set_a, row.set_b) for row in found.tests if row.statistic == "kruskal"}
    assert pairs == {("scdi", "dcdi")}
    assert value(found, "order_holds") is None
    assert value(found, "permutation_within_images", "scsi", "dcsi") is None

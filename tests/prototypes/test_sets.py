from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.prototypes.sets import SETS, DistanceMatrix, split_pairs
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, printed
from tests.reference import distance_sets


def drawn(objects: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symmetric distances [n, n], classes and images [n], in no order."""
    rng = np.random.default_rng(seed)
    distances = np.triu(rng.random((objects, objects)), 1)
    return distances + distances.T, rng.integers(0, 3, objects), rng.integers(0, max(objects // 3, 1), objects)


def test_six_objects_fall_into_the_sets_as_worked_out_by_hand() -> None:
    found = {
        name: printed(values.tolist())
        for name, values in split_pairs(DistanceMatrix(DISTANCES, CLASSES, IMAGES)).items()
    }
    assert found == {
        "scsi": [0.183503],
        "scdi": [0.168478, 0.573599, 0.847106, 1.174078, 1.404520],
        "dcsi": [1.090909, 1.316228, 1.774597],
        "dcdi": [0.325800, 0.439388, 0.941974, 1.0, 1.478091, 1.878310],
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objects", [2, 3, 31])
def test_sets_equal_the_double_loop_over_pairs(objects: int, dtype: type) -> None:
    distances, classes, images = drawn(objects)
    distances = distances.astype(dtype)
    expected = distance_sets.split_pairs(distances, classes, images)
    found = split_pairs(DistanceMatrix(torch.from_numpy(distances), torch.from_numpy(classes).numpy(), images))
    assert list(found) == list(SETS)
    for name in SETS:
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], expected[name])
    matrix = DistanceMatrix(distances, classes, images)
    assert matrix.set_sizes() == {name: len(values) for name, values in expected.items()}


def test_only_the_part_above_the_diagonal_is_read() -> None:
    distances, classes, images = drawn(12)
    images.sort()
    upper = np.where(np.triu(np.ones((12, 12), bool), 1), distances, -1)
    found, expected = (split_pairs(DistanceMatrix(each, classes, images)) for each in (upper, distances))
    for name in SETS:
        np.testing.assert_array_equal(found[name], expected[name])


def test_one_object_leaves_all_sets_empty_and_none_are_refused() -> None:
    found = split_pairs(DistanceMatrix(np.zeros((1, 1)), [0], [0]))
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(SETS, 0)
    with pytest.raises(UserError, match="n > 0 objects"):
        DistanceMatrix(np.zeros((0, 0)), [], [])


def test_distances_that_are_no_numbers_are_counted_and_the_first_named() -> None:
    distances, classes, images = drawn(10)
    distances[2, 5] = distances[3, 4] = distances[7, 9] = np.nan
    distances[8, 9] = np.inf
    with pytest.raises(
        UserError, match=r"^4 of 100 distances are not finite numbers, the first between objects 2 and 5"
    ):
        DistanceMatrix(distances, classes, images)


def test_classes_of_other_objects_are_refused() -> None:
    distances, classes, images = drawn(10)
    with pytest.raises(UserError, match=r"distances \[10, 10\], classes \[9\] and images \[10\]"):
        DistanceMatrix(distances, classes[:9], images)


def test_objects_are_sorted_by_image() -> None:
    matrix = DistanceMatrix(np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]]), [7, 8, 8], [5, 2, 5])
    assert matrix.distances.tolist() == [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
    assert (matrix.classes.tolist(), matrix.images.tolist(), matrix.starts.tolist()) == (
        [1, 0, 1],
        [0, 1, 1],
        [0, 1, 3],
    )


def test_memory_beyond_the_values_does_not_grow_with_the_pairs() -> None:
    distances, classes, images = drawn(700)
    matrix = DistanceMatrix(distances, classes, images)
    tracemalloc.start()
    values = split_pairs(matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = sum(of_set.nbytes for of_set in values.values())
    assert held == 700 * 699 // 2 * 8
    assert peak - held < 0.1 * held

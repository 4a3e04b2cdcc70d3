from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.prototypes.sets import SETS, set_sizes, split_pairs
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, printed
from tests.reference import distance_sets


def drawn(objects: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symmetric distances [n, n], classes and images [n], in no order."""
    rng = np.random.default_rng(seed)
    distances = np.triu(rng.random((objects, objects)), 1)
    return distances + distances.T, rng.integers(0, 3, objects), rng.integers(0, max(objects // 3, 1), objects)


def test_six_objects_fall_into_the_sets_as_worked_out_by_hand() -> None:
    found = {name: printed(values.tolist()) for name, values in split_pairs(DISTANCES, CLASSES, IMAGES).items()}
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
    found = split_pairs(torch.from_numpy(distances), torch.from_numpy(classes).numpy(), images)
    assert list(found) == list(SETS)
    for name in SETS:
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], expected[name])
    assert set_sizes(classes, images) == {name: len(values) for name, values in expected.items()}


def test_only_the_part_above_the_diagonal_is_read() -> None:
    distances, classes, images = drawn(12)
    upper = np.where(np.triu(np.ones((12, 12), bool), 1), distances, np.nan)
    found, expected = split_pairs(upper, classes, images), split_pairs(distances, classes, images)
    for name in SETS:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("objects", [0, 1])
def test_too_few_objects_for_a_pair_leave_all_sets_empty(objects: int) -> None:
    found = split_pairs(np.zeros((objects, objects)), np.zeros(objects, int), np.zeros(objects, int))
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(SETS, 0)


def test_distances_that_are_no_numbers_are_counted_and_the_first_named() -> None:
    distances, classes, images = drawn(10)
    distances[2, 5] = distances[3, 4] = distances[7, 9] = np.nan
    distances[8, 9] = np.inf
    with pytest.raises(
        UserError, match=r"^4 of 45 distances are not finite numbers, the first between objects 2 and 5"
    ):
        split_pairs(distances, classes, images)


def test_classes_of_other_objects_are_refused() -> None:
    distances, classes, images = drawn(10)
    with pytest.raises(UserError, match=r"distances \[10, 10\], classes \[9\] and images \[10\]"):
        split_pairs(distances, classes[:9], images)


def test_memory_beyond_the_values_does_not_grow_with_the_pairs() -> None:
    distances, classes, images = drawn(700)
    tracemalloc.start()
    values = split_pairs(distances, classes, images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    held = sum(of_set.nbytes for of_set in values.values())
    assert held == 700 * 699 // 2 * 8
    assert peak - held < 0.1 * held

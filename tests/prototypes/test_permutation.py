from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.prototypes.permutation import between_images, within_images
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES
from tests.reference.image_blocks import auc_of, labelings_between, labelings_within


def small(sizes: tuple[int, ...], seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    images = np.repeat(np.arange(len(sizes)), sizes)
    classes = random.integers(0, 3, len(images))
    points = random.normal(size=(len(images), 3)) + classes[:, None] * 0.7
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    return (distances.round() if ties else distances), classes, images


def in_range(p: float | None, exact: float, permutations: int) -> bool:
    """Within five standard errors of the share of all labelings, and the 1 that both counts of p have."""
    assert p is not None
    return abs(p - exact) < 5 * np.sqrt(exact * (1 - exact) / permutations) + 1 / permutations


def test_the_statistics_of_the_worked_example() -> None:
    between, within = between_images(DISTANCES, CLASSES, IMAGES), within_images(DISTANCES, CLASSES, IMAGES)
    assert between.statistic == pytest.approx(0.6, abs=5e-7)
    assert within.statistic == pytest.approx(1, abs=5e-7)
    assert between.exchangeable == 0  # images with 3, 2 and 1 objects
    assert between.p == 1
    assert within.exchangeable == 2
    assert in_range(within.p, 1 / 3, 999)  # in the first image one of three labelings puts the cats together


def test_six_of_twenty_free_labelings_reach_the_worked_example() -> None:
    found = []
    for cats in combinations(range(6), 3):
        test = between_images(DISTANCES, [object not in cats for object in range(6)], IMAGES, permutations=1)
        found.append(test.statistic)
    assert len(found) == 20
    assert sum(value >= 0.6 - 1e-6 for value in found) == 6


@pytest.mark.parametrize("ties", [False, True])
def test_images_of_equal_size_swap_their_labels(ties: bool) -> None:
    distances, classes, images = small((2, 1, 2, 3, 1, 2), 1, ties)
    pair = ("scdi", "dcdi")
    every = [auc_of(pair, distances, labels, images) for labels in labelings_between(classes, images)]
    observed = auc_of(pair, distances, classes, images)
    exact = float(np.mean(np.array(every) >= observed - 1e-9))
    test = between_images(distances, classes, images, permutations=3000, seed=2)
    assert test.statistic == pytest.approx(observed, abs=1e-6)
    assert 0.02 < exact < 0.98
    assert in_range(test.p, exact, 3000)
    assert test.exchangeable == 5  # all but the image with three objects


@pytest.mark.parametrize("ties", [False, True])
def test_objects_of_an_image_swap_their_labels(ties: bool) -> None:
    distances, classes, images = small((3, 1, 3, 4), 3, ties)
    pair = ("scsi", "dcsi")
    every = [auc_of(pair, distances, labels, images) for labels in labelings_within(classes, images)]
    observed = auc_of(pair, distances, classes, images)
    exact = float(np.mean(np.array(every) >= observed - 1e-9))
    test = within_images(distances, classes, images, permutations=3000, seed=2)
    assert test.statistic == pytest.approx(observed, abs=1e-6)
    assert 0.02 < exact < 0.98
    assert in_range(test.p, exact, 3000)


def test_a_true_effect_is_found_and_the_seed_decides_the_rest() -> None:
    distances, classes, images = small((2,) * 30, 0)
    found = between_images(distances, classes, images, permutations=199, seed=5)
    assert found.p == 1 / 200
    assert found == between_images(distances, classes, images, permutations=199, seed=5)


def test_the_order_and_names_of_objects_do_not_matter_to_the_statistic() -> None:
    distances, classes, images = small((2, 3, 1, 2), 3)
    order = np.random.default_rng(0).permutation(8)
    shuffled = torch.from_numpy(distances[order][:, order]).float(), classes[order] * 10 - 7, images[order] * 5 + 3
    assert between_images(*shuffled).statistic == pytest.approx(between_images(distances, classes, images).statistic)
    assert within_images(*shuffled).statistic == pytest.approx(within_images(distances, classes, images).statistic)


def test_a_set_without_pairs_has_no_test() -> None:
    distances, _, images = small((2, 2, 1), 0)
    for test in (between_images, within_images):
        found = test(distances, np.zeros(5), images)
        assert (found.statistic, found.p) == (None, None)
    assert within_images(distances, np.arange(5), np.arange(5)).p is None


def test_what_does_not_fit_is_named() -> None:
    distances, classes, images = small((2, 2, 1), 0)
    with pytest.raises(UserError, match=r"\[5, 5\], classes \[4\]"):
        between_images(distances, classes[:4], images)
    distances[1, 2] = distances[2, 1] = np.nan
    with pytest.raises(UserError, match="2 of 25 distances"):
        within_images(distances, classes, images)

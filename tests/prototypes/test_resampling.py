from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from diffprobe.prototypes import resampling
from diffprobe.prototypes.resampling import between_images, left_out_sets, set_intervals, within_images
from diffprobe.prototypes.sets import PAIRS, SETS, DistanceMatrix
from diffprobe.statistics.intervals import Interval, jackknife_interval, jackknife_p
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, printed
from tests.reference.image_blocks import auc, auc_of, labelings_between, labelings_within, weighted_sets


def data(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up to four objects an image, nearer within a class and within an image."""
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(images), random.integers(1, 5, images))
    classes = random.integers(0, 3, len(of))
    points = (
        random.normal(size=(len(of), 8)) + random.normal(size=(images, 8))[of] + random.normal(size=(3, 8))[classes]
    )
    return np.linalg.norm(points[:, None] - points, axis=2), classes, of


def test_the_worked_example_without_its_last_image() -> None:
    found = left_out_sets(DistanceMatrix(DISTANCES, CLASSES, IMAGES), np.array([0, 0, 1]))
    assert found.sizes[0].tolist() == [1, 5, 3, 6]
    assert printed(found.means[0].tolist()) == [0.183503, 0.833556, 1.393911, 1.010594]
    assert printed(found.aucs[0].tolist()) == [0.8, 1, 1, 0.8, 0.6, 0.277778]
    sets = weighted_sets(DISTANCES, CLASSES, IMAGES, np.array([1, 1, 0]))
    assert found.sizes[2].tolist() == [len(sets[name]) for name in SETS]
    assert found.binning == 0


@pytest.mark.parametrize("decimals", [9, 1])
@pytest.mark.parametrize("parts", [8, 3])
def test_few_distances_equal_the_slow_obvious_sets(decimals: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_PAIRS_AT_ONCE", 70)  # some rows at a time
    distances, classes, images = data(8)
    distances, of = distances.round(decimals), np.arange(8) % parts
    found = left_out_sets(DistanceMatrix(distances, classes, images), of)
    for row, part in enumerate([-1, *range(parts)]):
        sets = weighted_sets(distances, classes, images, of != part)
        assert found.sizes[row].tolist() == [len(sets[name]) for name in SETS]
        assert found.means[row] == pytest.approx([sets[name].mean() for name in SETS])
        assert found.aucs[row] == pytest.approx([auc(sets[a], sets[b]) for a, b in PAIRS])
    assert found.binning == 0


def test_bins_are_off_by_no_more_than_they_say() -> None:
    distances, classes, images = data(40)
    matrix, parts = DistanceMatrix(distances, classes, images), np.arange(40)
    exact, coarse = left_out_sets(matrix, parts, bins=10_000), left_out_sets(matrix, parts, bins=256)
    assert exact.binning == 0
    errors = np.abs(exact.aucs - coarse.aucs)
    assert 1e-5 < errors.max() <= coarse.binning < 0.01
    assert errors[:, PAIRS.index(("scsi", "dcdi"))].max() < 1e-3  # 27 scsi pairs have bins of their own
    np.testing.assert_array_equal(exact.sizes, coarse.sizes)
    np.testing.assert_allclose(exact.means, coarse.means, rtol=1e-12)
    assert np.abs(exact.aucs - left_out_sets(matrix, parts).aucs).max() < 3e-4


def test_many_objects_are_binned_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_SAMPLED_ROWS", 20)
    distances, classes, images = data(40)
    matrix, parts = DistanceMatrix(distances, classes, images), np.arange(40)
    sampled, exact = left_out_sets(matrix, parts, bins=64), left_out_sets(matrix, parts, bins=10_000)
    assert exact.binning > 0  # twenty objects' distances are not all there are
    assert np.abs(sampled.aucs - exact.aucs).max() <= sampled.binning + exact.binning


@pytest.mark.parametrize("ties", [False, True])
def test_ranks_are_those_of_scipy_however_many_are_sorted_at_once(ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    values = values.round(1) if ties else values
    expected = (rankdata(values) - 0.5) / 1000 - 0.5
    for at_once in (2000, 70):
        monkeypatch.setattr(resampling, "_RANKED_AT_ONCE", at_once)
        assert resampling._centred_ranks(values) == pytest.approx(expected, abs=1e-7)


def test_intervals_leave_out_one_image_after_the_other() -> None:
    distances, classes, images = data(12)
    found = set_intervals(DistanceMatrix(distances, classes, images))
    slow = [weighted_sets(distances, classes, images, np.ones(12))]
    slow += [weighted_sets(distances, classes, images, np.arange(12) != image) for image in range(12)]
    with_pairs = {name: sum(len(each[name]) < len(slow[0][name]) for each in slow[1:]) for name in SETS}
    for name in SETS:
        means = np.array([each[name].mean() for each in slow])
        assert_near(found.means[name], jackknife_interval(means, with_pairs[name]))
    for first, second in PAIRS:
        fewer = min(with_pairs[first], with_pairs[second])
        differences = np.array([each[second].mean() - each[first].mean() for each in slow])
        aucs = np.array([auc(each[first], each[second]) for each in slow])
        assert_near(found.differences[first, second], jackknife_interval(differences, fewer))
        assert_near(found.aucs[first, second], jackknife_interval(aucs, fewer, share=True))
        if (first, second) in pairwise(SETS) and found.order_p is not None:
            assert found.order_p >= jackknife_p(differences, fewer) - 1e-9
    assert found.order_holds == bool((np.diff([slow[0][name].mean() for name in SETS]) > 0).all())


def test_the_order_is_shown_where_each_set_is_above_the_one_before() -> None:
    distances, classes, images = ordered()
    found = set_intervals(DistanceMatrix(distances, classes, images))
    assert found.order_holds
    assert found.order_p < 1e-6  # type: ignore[operator]
    assert found.aucs["scsi", "scdi"].value == 1
    assert found.aucs["scsi", "scdi"].low == pytest.approx(0.025 ** (1 / 10))  # ten images, none against it
    assert found.means["dcsi"] == Interval(3, 3, 3)
    equal = set_intervals(DistanceMatrix(np.where(distances == 3, 2, distances), classes, images))
    assert (equal.order_holds, equal.order_p) == (False, pytest.approx(0.5, abs=0.5))


def test_an_order_of_equal_sets_is_shown_in_no_more_than_six_percent() -> None:
    random, shown = np.random.default_rng(0), 0
    base, classes, images = ordered()
    base[base == 3] = 2  # scdi and dcsi are equal
    for _ in range(200):
        pull, noise = random.exponential(size=10)[images], random.normal(size=base.shape)
        distances = 5 * base + pull[:, None] + pull + np.tril(noise) + np.tril(noise, -1).T
        shown += set_intervals(DistanceMatrix(distances, classes, images)).order_p <= 0.05  # type: ignore[operator]
    assert shown <= 15  # 7.5 %: 6 % and one standard error


def ordered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten images of two objects of two classes each; all distances of a set are equal, 1 to 4."""
    distances = np.full((40, 40), 4.0)
    images, classes = np.repeat(np.arange(10), 4), np.tile([0, 0, 1, 1], 10)
    same_class, same_image = classes[:, None] == classes, images[:, None] == images
    distances[same_class & same_image], distances[same_class & ~same_image] = 1, 2
    distances[~same_class & same_image] = 3
    return distances, classes, images


def assert_near(found: Interval, expected: Interval) -> None:
    cells = (found.value, found.low, found.high), (expected.value, expected.low, expected.high)
    if expected.low is None:
        assert found.low is found.high is None
        assert found.value == pytest.approx(expected.value)
    else:
        assert cells[0] == pytest.approx(cells[1], abs=1e-5)


def test_a_set_without_pairs_is_none() -> None:
    distances, classes, _ = data(8)
    alone = np.arange(len(classes))
    found = set_intervals(DistanceMatrix(distances, classes, alone))
    assert found.means["scsi"] == found.aucs["scsi", "dcdi"] == Interval(None, None, None)
    assert found.means["dcdi"].low is not None
    assert (found.order_holds, found.order_p) == (None, None)


def test_a_set_with_pairs_in_few_images_has_no_interval() -> None:
    found = set_intervals(DistanceMatrix(DISTANCES, CLASSES, IMAGES))
    assert found.means["scsi"].value == pytest.approx(0.183503, abs=1e-6)
    assert (found.means["scsi"].low, found.means["scsi"].high) == (None, None)
    assert (found.order_holds, found.order_p) == (False, None)


def test_one_object_and_one_image_have_no_pairs_of_two() -> None:
    assert set_intervals(DistanceMatrix(np.zeros((1, 1)), [0], [0])).means["scsi"].value is None
    found = set_intervals(DistanceMatrix(DISTANCES, CLASSES, np.zeros(6)))
    assert (found.means["scdi"].value, found.means["dcsi"].value is None) == (None, False)


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
    matrix = DistanceMatrix(DISTANCES, CLASSES, IMAGES)
    between, within = between_images(matrix), within_images(matrix)
    assert between.statistic == pytest.approx(0.6, abs=5e-7)
    assert within.statistic == pytest.approx(1, abs=5e-7)
    assert between.p == 1
    assert in_range(within.p, 1 / 3, 999)  # in the first image one of three labelings puts the cats together


def test_six_of_twenty_free_labelings_reach_the_worked_example() -> None:
    found = []
    for cats in combinations(range(6), 3):
        matrix = DistanceMatrix(DISTANCES, [object not in cats for object in range(6)], IMAGES)
        test = between_images(matrix, permutations=1)
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
    test = between_images(DistanceMatrix(distances, classes, images), permutations=3000, seed=2)
    assert test.statistic == pytest.approx(observed, abs=1e-6)
    assert 0.02 < exact < 0.98
    assert in_range(test.p, exact, 3000)


@pytest.mark.parametrize("ties", [False, True])
def test_objects_of_an_image_swap_their_labels(ties: bool) -> None:
    distances, classes, images = small((3, 1, 3, 4), 3, ties)
    pair = ("scsi", "dcsi")
    every = [auc_of(pair, distances, labels, images) for labels in labelings_within(classes, images)]
    observed = auc_of(pair, distances, classes, images)
    exact = float(np.mean(np.array(every) >= observed - 1e-9))
    test = within_images(DistanceMatrix(distances, classes, images), permutations=3000, seed=2)
    assert test.statistic == pytest.approx(observed, abs=1e-6)
    assert 0.02 < exact < 0.98
    assert in_range(test.p, exact, 3000)


def test_a_true_effect_is_found_and_the_seed_decides_the_rest() -> None:
    distances, classes, images = small((2,) * 30, 0)
    found = between_images(DistanceMatrix(distances, classes, images), permutations=199, seed=5)
    assert found.p == 1 / 200
    assert found == between_images(DistanceMatrix(distances, classes, images), permutations=199, seed=5)


def test_the_order_and_names_of_objects_do_not_matter_to_the_statistic() -> None:
    distances, classes, images = small((2, 3, 1, 2), 3)
    order = np.random.default_rng(0).permutation(8)
    shuffled = torch.from_numpy(distances[order][:, order]).float(), classes[order] * 10 - 7, images[order] * 5 + 3
    matrices = DistanceMatrix(*shuffled), DistanceMatrix(distances, classes, images)
    for test in (between_images, within_images):
        found, expected = (test(matrix).statistic for matrix in matrices)
        assert found == pytest.approx(expected)


def test_a_set_without_pairs_has_no_test() -> None:
    distances, _, images = small((2, 2, 1), 0)
    for test in (between_images, within_images):
        found = test(DistanceMatrix(distances, np.zeros(5), images))
        assert (found.statistic, found.p) == (None, None)
    assert within_images(DistanceMatrix(distances, np.arange(5), np.arange(5))).p is None

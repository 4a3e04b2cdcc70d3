from __future__ import annotations

import numpy as np
import pytest

from diffprobe.prototypes.cluster_bootstrap import PAIRS, Interval, bootstrap_sets, interval, resample_sets
from diffprobe.prototypes.sets import SETS
from diffprobe.statistics import resampling_counts
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, printed
from tests.reference.image_blocks import auc, weighted_sets


def data(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up to four objects an image, nearer within a class and within an image."""
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(images), random.integers(1, 5, images))
    classes = random.integers(0, 3, len(of))
    points = (
        random.normal(size=(len(of), 8)) + random.normal(size=(images, 8))[of] + random.normal(size=(3, 8))[classes]
    )
    return np.linalg.norm(points[:, None] - points, axis=2), classes, of


def test_the_worked_replicate() -> None:
    drawn = resample_sets(DISTANCES, CLASSES, IMAGES, np.array([[1, 1, 1], [2, 1, 1]]))
    assert drawn.weights.tolist() == [[1, 5, 3, 6], [2, 9, 5, 11]]
    assert printed(drawn.means[0].tolist()) == [0.183503, 0.833556, 1.393911, 1.010594]
    assert printed(drawn.means[1].tolist()) == [0.183503, 0.832050, 1.454512, 1.062522]
    assert printed(drawn.aucs[0].tolist()) == [0.8, 1, 1, 0.8, 0.6, 0.277778]
    assert round(drawn.aucs[1, PAIRS.index(("scdi", "dcdi"))], 6) == 0.626263
    assert drawn.binning == 0


@pytest.mark.parametrize("decimals", [9, 1])
def test_few_distances_equal_the_slow_obvious_sets(decimals: int) -> None:
    distances, classes, images = data(8)
    distances = distances.round(decimals)
    counts = resampling_counts(8, 12, seed=1)
    drawn = resample_sets(distances, classes, images, counts)
    for row, weights in enumerate(counts):
        sets = weighted_sets(distances, classes, images, weights)
        assert drawn.weights[row].tolist() == [len(sets[name]) for name in SETS]
        assert drawn.means[row] == pytest.approx([sets[name].mean() for name in SETS])
        assert drawn.aucs[row] == pytest.approx([auc(sets[a], sets[b]) for a, b in PAIRS])
    assert drawn.binning == 0


def test_bins_are_off_by_no_more_than_they_say() -> None:
    distances, classes, images = data(40)
    counts = resampling_counts(40, 100, seed=1)
    exact = resample_sets(distances, classes, images, counts, bins=10_000)
    coarse = resample_sets(distances, classes, images, counts, bins=256)
    assert exact.binning == 0
    errors = np.abs(exact.aucs - coarse.aucs)
    assert 1e-5 < errors.max() <= coarse.binning < 0.01
    assert errors[:, PAIRS.index(("scsi", "dcdi"))].max() < 1e-3  # 27 scsi pairs have bins of their own
    np.testing.assert_array_equal(exact.weights, coarse.weights)
    np.testing.assert_array_equal(exact.means, coarse.means)
    default = resample_sets(distances, classes, images, counts)
    assert np.abs(exact.aucs - default.aucs).max() < 3e-4


def test_many_objects_are_binned_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffprobe.prototypes.weighted_pairs._SAMPLED_ROWS", 20)
    distances, classes, images = data(40)
    counts = resampling_counts(40, 20, seed=1)
    sampled = resample_sets(distances, classes, images, counts, bins=64)
    exact = resample_sets(distances, classes, images, counts, bins=10_000)
    assert exact.binning > 0  # twenty objects' distances are not all there are
    assert np.abs(sampled.aucs - exact.aucs).max() <= sampled.binning + exact.binning


def test_intervals_are_the_quantiles_of_the_resamples() -> None:
    distances, classes, images = data(12)
    found = bootstrap_sets(distances, classes, images, resamples=200, level=0.9, seed=3)
    drawn = resample_sets(distances, classes, images, resampling_counts(12, 200, 3))
    whole = resample_sets(distances, classes, images, np.ones((1, 12)))
    low, high = np.quantile(drawn.means[:, 1], [0.05, 0.95])
    mean = found.means["scdi"]
    assert (mean.value, mean.low, mean.high) == pytest.approx((whole.means[0, 1], low, high))
    difference = found.differences["scdi", "dcdi"]
    low, high = np.quantile(drawn.means[:, 3] - drawn.means[:, 1], [0.05, 0.95])
    assert (difference.low, difference.high) == pytest.approx((low, high))
    assert difference.value == pytest.approx(whole.means[0, 3] - whole.means[0, 1])
    low, high = np.quantile(drawn.aucs[:, 4], [0.05, 0.95])
    assert (found.aucs["scdi", "dcdi"].low, found.aucs["scdi", "dcdi"].high) == pytest.approx((low, high))
    holds = (np.diff(drawn.means) > 0).all(1)
    assert found.order == pytest.approx(holds.mean())
    assert found.order_holds == bool((np.diff(whole.means[0]) > 0).all())


def test_the_order_is_counted_over_resamples() -> None:
    distances = np.full((40, 40), 4.0)
    images, classes = np.repeat(np.arange(10), 4), np.tile([0, 0, 1, 1], 10)
    same_class, same_image = classes[:, None] == classes, images[:, None] == images
    distances[same_class & same_image], distances[same_class & ~same_image] = 1, 2
    distances[~same_class & same_image] = 3
    found = bootstrap_sets(distances, classes, images, resamples=50)
    assert (found.order_holds, found.order) == (True, 1)
    assert found.aucs["scsi", "scdi"] == Interval(1, 1, 1)
    assert found.means["dcsi"] == Interval(3, 3, 3)


def test_a_set_without_pairs_is_none() -> None:
    distances, classes, _ = data(8)
    alone = np.arange(len(classes))
    found = bootstrap_sets(distances, classes, alone, resamples=20)
    assert found.means["scsi"] == found.aucs["scsi", "dcdi"] == Interval(None, None, None)
    assert found.means["dcdi"].low is not None
    assert (found.order_holds, found.order) == (None, None)


def test_a_set_that_resamples_often_miss_has_no_interval() -> None:
    """With one image of two cats, a good third of the resamples are without it."""
    found = bootstrap_sets(DISTANCES, CLASSES, IMAGES, resamples=200)
    assert found.means["scsi"].value == pytest.approx(0.183503, abs=1e-6)
    assert (found.means["scsi"].low, found.means["scsi"].high) == (None, None)
    assert (found.order_holds, found.order) == (False, None)


def test_one_object_and_one_image_have_no_pairs_of_two() -> None:
    assert bootstrap_sets(np.zeros((1, 1)), [0], [0], resamples=5).means["scsi"].value is None
    found = bootstrap_sets(DISTANCES, CLASSES, np.zeros(6), resamples=5)
    assert (found.means["scdi"].value, found.means["dcsi"].value is None) == (None, False)


def test_an_interval_leaves_out_what_is_undefined() -> None:
    values = np.array([2.0, *np.arange(19.0), np.nan])
    low, high = np.quantile(np.arange(19), [0.25, 0.75])
    assert interval(values, 0.5) == Interval(2, low, high)

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torchmetrics.clustering import DunnIndex

from diffprobe.prototypes import pair_tests as dunn
from diffprobe.prototypes import sets as set_statistics
from diffprobe.prototypes.pair_tests import cluster, dunn_indices, nearest
from diffprobe.prototypes.sets import SETS, DistanceMatrix, split_pairs
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, SCALARS, printed
from tests.reference import distance_sets

WORKED = {  # of the sets a and b, a and c, b and c
    "dunn_paper": [2.066667, 1.179487, 0.807692],
    "dunn_textbook": [0.2, 0.1, 0.1],
    "dunn_centroid_range": [1.033333, 0.613333, 0.42],
    "dunn_centroid_halfrange": [2.066667, 1.226667, 0.84],
    "dunn_centroid_meanpair": [1.722222, 1.135802, 0.7],
    "dunn_centroid_2mad": [1.291667, 0.891473, 0.525],
    "dunn_centroid_2std": [1.253101, 0.792868, 0.509325],
}


def indices(first: np.ndarray, second: np.ndarray) -> dict[str, float | None]:
    return dunn_indices(cluster(first), cluster(second))


def with_torchmetrics(*sets: np.ndarray) -> float:
    values = torch.cat([torch.from_numpy(values.astype(np.float64)) for values in sets])[:, None]
    labels = torch.cat([torch.full((len(values),), label) for label, values in enumerate(sets)])
    return float(DunnIndex()(values, labels))


@pytest.mark.parametrize("name", WORKED)
def test_scalar_sets_have_the_indices_worked_out_by_hand(name: str) -> None:
    found = [indices(SCALARS[a], SCALARS[b])[name] or 0 for a, b in ("ab", "ac", "bc")]
    assert printed(found) == WORKED[name]


def test_six_objects_have_the_indices_worked_out_by_hand() -> None:
    sets = split_pairs(DistanceMatrix(DISTANCES, CLASSES, IMAGES))
    found = [indices(sets[a], sets[b])["dunn_paper"] or 0 for a, b in combinations(SETS, 2)]
    assert printed(found) == [0.977408, 3.179548, 0.953181, 0.842541, 0.204028, 0.441754]


def test_sizes_and_means_give_the_index_of_three_clusters() -> None:
    clusters = [cluster(values) for values in SCALARS.values()]
    apart = min(abs(a.mean - b.mean) for a, b in combinations(clusters, 2))
    found = apart / max(of_set.sizes["dunn_paper"] for of_set in clusters)
    assert printed([found]) == [0.807692]
    assert found == pytest.approx(with_torchmetrics(*SCALARS.values()))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_variant_equals_its_definition_and_the_papers_is_torchmetrics(
    dtype: type, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_statistics, "_CHUNK", 7)
    monkeypatch.setattr(dunn, "_CHUNK", 5)
    rng = np.random.default_rng(seed)
    first = np.sort(rng.normal(0.4, 0.2, rng.integers(2, 40)).astype(dtype))
    second = np.sort(rng.normal(0.9, 0.3, rng.integers(2, 40)).astype(dtype))
    found = indices(first, second)
    assert found == pytest.approx(distance_sets.dunn_indices(first, second), rel=1e-9)
    assert found["dunn_paper"] == pytest.approx(with_torchmetrics(first, second), rel=1e-12)
    assert indices(second, first) == found


def test_the_nearest_values_of_sets_with_a_value_in_common_are_at_no_distance() -> None:
    assert nearest(np.array([0.0, 1, 5]), np.array([2.0, 5, 9])) == 0
    assert nearest(np.array([7.0]), np.array([1.0, 4])) == nearest(np.array([1.0, 4]), np.array([7.0])) == 3


def test_two_sets_without_size_have_no_index() -> None:
    first, second = np.full(3, 0.1, np.float32), np.full(7, 0.3, np.float32)
    assert set(indices(first, second).values()) == {None}
    one = indices(first, np.array([0.3, 0.5], np.float32))
    assert one["dunn_paper"] == pytest.approx(3, rel=1e-6)

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, silhouette_samples

from diffprobe.prototypes import retrieval
from diffprobe.prototypes.retrieval import neighbours, object_scores, retrieve
from diffprobe.prototypes.sets import DistanceMatrix
from diffprobe.statistics.intervals import jackknife_interval
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, printed
from tests.reference import retrieval as reference

PRECISION = "mean_average_precision"


def data(seed: int = 0, ties: bool = False) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 12, 40)
    classes = random.integers(0, 4, 40)
    points = random.normal(size=(40, 3)) + classes[:, None]
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    return torch.from_numpy(distances.round(1) if ties else distances), classes, images


def score(name: str, distances: torch.Tensor | np.ndarray, classes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Of all objects among all, in the order given."""
    matrix = DistanceMatrix(distances, classes, images)
    found = object_scores(matrix, np.zeros(len(classes), int), slice(0, len(classes)))[name][:, 0]
    return found[np.argsort(np.argsort(images, kind="stable"))]


def test_the_worked_example() -> None:
    found = retrieve(DistanceMatrix(DISTANCES, CLASSES, IMAGES))
    precisions = score(PRECISION, DISTANCES, CLASSES, IMAGES)
    assert printed(precisions.tolist()) == [1, 0.5, 0.833333, 0.416667, 0.75, 0.833333]
    assert found["mean_average_precision"].value == pytest.approx(0.722222, abs=5e-7)
    assert found["silhouette"].value == pytest.approx(0.295266, abs=5e-7)
    assert found["knn_accuracy"].value == pytest.approx(4 / 6)


def test_silhouettes_equal_scikit_learn() -> None:
    distances, classes, images = data()
    classes[7] = 99  # alone in its class
    found = score("silhouette", distances, classes, images)
    assert found == pytest.approx(silhouette_samples(distances.numpy(), classes, metric="precomputed"))
    assert found[7] == 0


@pytest.mark.parametrize("ties", [False, True])
def test_average_precisions_equal_scikit_learn(ties: bool) -> None:
    distances, classes, images = data(1, ties)
    found = score(PRECISION, distances, classes, images)
    for query in range(40):
        others = images != images[query]
        relevant = classes[others] == classes[query]
        assert found[query] == pytest.approx(average_precision_score(relevant, -distances[query].numpy()[others]))


@pytest.mark.slow
def test_average_precisions_equal_torchmetrics() -> None:
    from torchmetrics.retrieval import RetrievalMAP

    distances, classes, images = data(2)
    others = torch.from_numpy(images[:, None] != images)
    query = torch.arange(40)[:, None].expand(40, 40)
    relevant = torch.from_numpy(classes[:, None] == classes)
    expected = RetrievalMAP()(1 / (1 + distances[others]), relevant[others], query[others])
    assert score(PRECISION, distances, classes, images).mean() == pytest.approx(float(expected), abs=1e-6)


def test_neighbours_are_the_nearest_of_other_images() -> None:
    distances, _, images = data()
    found = neighbours(distances, images, 5)
    for query in range(40):
        others = [other for other in range(40) if images[other] != images[query]]
        assert found[query].tolist() == sorted(others, key=lambda other: float(distances[query, other]))[:5]


def test_missing_neighbours_are_marked() -> None:
    distances = torch.tensor([[0.0, 1, 2], [1, 0, 3], [2, 3, 0]])
    assert neighbours(distances, np.array([0, 0, 1]), 2).tolist() == [[2, -1], [2, -1], [0, 1]]
    assert neighbours(distances, np.array([0, 1, 2]), 5).tolist() == [
        [1, 2, -1, -1, -1],
        [0, 2, -1, -1, -1],
        [0, 1, -1, -1, -1],
    ]


@pytest.mark.parametrize(
    ("classes", "hit", "hit_of_five"),
    [
        ([0, 1, 0, 0, 1, 1], 0, 0),
        ([0, 0, 1, 1, 0, 1], 1, 0),
        ([0, 0, 0, 1, 1, 2], 1, 1),  # two votes each, the nearest is of class 0
        ([0, 1, 1, 0, 0, 2], 0, 0),  # two votes each, the nearest is of class 1
    ],
)
def test_the_majority_decides_and_the_nearest_a_draw(classes: list[int], hit: int, hit_of_five: int) -> None:
    ahead = torch.tensor([0.0, 1, 2, 3, 4, 5])
    scores = ((ahead[:, None] - ahead).abs(), np.array(classes), np.arange(6))
    assert score("knn_accuracy", *scores)[0] == hit
    assert score("knn_accuracy_5", *scores)[0] == hit_of_five


def test_the_first_of_equally_near_objects_is_the_nearest() -> None:
    distances = torch.ones(7, 7) - torch.eye(7)
    for dtype in (torch.float32, torch.float64):
        assert neighbours(distances.to(dtype), np.arange(7), 3)[[0, 4]].tolist() == [[1, 2, 3], [0, 1, 2]]
    row = torch.tensor([0, -0.0, -1, 2, 0, -3])
    assert neighbours(row.expand(6, 6), np.arange(6), 5)[0].tolist() == [5, 2, 1, 4, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("per_image", "parts"), [(4, 3), (4, 20), (12, 3), (1, 20)])
def test_scores_without_a_part_are_those_of_the_other_objects(
    per_image: int, parts: int, ties: bool, dtype: type
) -> None:
    """Twelve objects an image and three parts leave some objects with few neighbours."""
    distances, classes, _ = data(3, ties)
    images = np.arange(40) // per_image
    matrix = DistanceMatrix(distances.numpy().astype(dtype), classes, images)
    left_out = images % parts
    found = object_scores(matrix, left_out, slice(7, 29))
    for column, part in enumerate([-1, *range(left_out.max() + 1)]):
        kept = np.flatnonzero(left_out != part)
        within = matrix.distances.numpy()[np.ix_(kept, kept)]
        expected = reference.object_scores(within, classes[kept], images[kept])
        of_rows = (kept >= 7) & (kept < 29)
        for name, values in found.items():
            assert values[kept[of_rows] - 7, column] == pytest.approx(
                np.array(expected[name])[of_rows], nan_ok=True, abs=1e-6 if dtype == np.float32 else 1e-12
            )


def test_queries_without_their_class_elsewhere_are_left_out() -> None:
    distances, classes, images = data()
    classes[5] = 50
    classes[images == 3] = 60
    found = retrieve(DistanceMatrix(distances, classes, images))
    alone = np.isnan(score(PRECISION, distances, classes, images))
    assert alone.tolist() == ((classes == 50) | (classes == 60)).tolist()
    assert found["mean_average_precision"].value == pytest.approx(
        score(PRECISION, distances, classes, images)[~alone].mean()
    )


def test_intervals_leave_images_out_of_queries_and_gallery() -> None:
    distances, classes, images = data()
    found = retrieve(DistanceMatrix(distances, classes, images))["mean_average_precision"]
    values = [np.nanmean(score(PRECISION, distances, classes, images))]
    for image in np.unique(images):
        kept = np.flatnonzero(images != image)
        values.append(np.nanmean(score(PRECISION, distances[kept][:, kept], classes[kept], images[kept])))
    expected = jackknife_interval(np.array(values), len(np.unique(images)), share=True)
    assert astuple(found) == pytest.approx(astuple(expected))
    assert found.low < found.value < found.high  # type: ignore[operator]


def test_many_images_are_left_out_in_parts() -> None:
    distances, classes, images = data()
    few = retrieve(DistanceMatrix(distances, classes, images), parts=5, seed=1)["knn_accuracy"]
    assert few.low is not None
    assert few != retrieve(DistanceMatrix(distances, classes, images), parts=5, seed=2)["knn_accuracy"]


def test_one_class_or_one_image_leaves_its_scores_undefined() -> None:
    distances, classes, images = data()
    one_class = retrieve(DistanceMatrix(distances, np.zeros(40), images))
    assert one_class["silhouette"].value is None
    assert one_class["mean_average_precision"].value == 1
    one_image = retrieve(DistanceMatrix(distances, classes, np.zeros(40)))
    assert one_image["knn_accuracy"].value is None
    assert one_image["mean_average_precision"].value is None


def test_the_result_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    distances, classes, images = data()
    matrix = DistanceMatrix(distances, classes, images)
    whole = retrieve(matrix)
    monkeypatch.setattr(retrieval, "_ELEMENTS_AT_ONCE", 120)
    found = retrieve(matrix)
    for name, interval in whole.items():
        assert astuple(found[name]) == pytest.approx(astuple(interval))

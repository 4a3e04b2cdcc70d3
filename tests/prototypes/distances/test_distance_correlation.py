"""Distance correlation: equal to the package dcor, exact to 2e-6 in dCor^2 in float32."""

from __future__ import annotations

import importlib
from types import ModuleType
from unittest.mock import patch

import numba
import numpy as np
import pytest
import torch

from diffprobe.prototypes import distances as correlation
from diffprobe.prototypes.distances import cross_distances, distance_matrix
from diffprobe.prototypes.distances.products import tiles
from tests.prototypes.distances.vectors import KINDS, vectors
from tests.reference import distances as reference


@pytest.fixture(scope="module")
def dcor() -> ModuleType:
    """As plain Python: to compile it takes longer than all of these tests. Its functions of rows are left out, since
    numba compiles those whatever is set, from compiled parts."""
    with (
        patch.object(numba.config, "DISABLE_JIT", True),
        patch.object(numba, "guvectorize", lambda *_, **__: lambda function: function),
    ):
        return importlib.import_module("dcor")


@pytest.fixture(params=["products", "sorted values"])
def form(request, monkeypatch) -> str:
    """Both ways to compute it, for any number of channels."""
    monkeypatch.setattr(correlation, "SORTED", range(0 if request.param == "products" else 2**15 + 1))
    return request.param


def squared(distances: torch.Tensor) -> np.ndarray:
    """dCor^2 of distances 1 - dCor."""
    return (1 - distances.double().numpy()) ** 2


def every_pair(statistic, x: torch.Tensor) -> np.ndarray:
    result = reference.every(statistic, x.double().numpy(), x.double().numpy())
    np.fill_diagonal(result, 1)
    return result


@pytest.mark.parametrize("size", [5, 97])
def test_v_statistic_equals_dcor(size, form, dcor):
    x = vectors("plain", 10, size)
    expected = every_pair(lambda a, b: dcor.distance_correlation(a, b, method="mergesort") ** 2, x)
    for precision, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        found = squared(distance_matrix(x, "distance_correlation", precision=precision))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [5, 97])
def test_u_statistic_equals_dcor(size, form, dcor):
    x = vectors("plain", 10, size)
    expected = every_pair(dcor.u_distance_correlation_sqr, x)
    assert (expected < 0).any()  # the sign matters
    for precision, tolerance in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        found = 1 - distance_matrix(x, "distance_correlation_u", precision=precision).double().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_exact_to_two_millionths_of_the_square(kind, form):
    x = vectors(kind, 5, 320)
    expected_v, expected_u = every_pair(reference.squared_v, x), every_pair(reference.squared_u, x)
    for budget in (2**29, 5 * 4 * 1000):  # the latter: tiles of 1000 values
        v, u = (distance_matrix(x, f"distance_correlation{suffix}", budget=budget) for suffix in ("", "_u"))
        np.testing.assert_allclose(squared(v), expected_v, rtol=0, atol=2e-6)
        np.testing.assert_allclose(1 - u.numpy(), expected_u, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_float32_is_exact_where_each_form_is_used(form):
    x = torch.cat([vectors(kind, 20, 639 if form == "products" else 1280) for kind in KINDS])
    found, expected = (
        squared(distance_matrix(x, "distance_correlation", precision=p)) for p in (torch.float32, torch.float64)
    )
    assert np.abs(found - expected).max() <= 2e-6


def test_neither_sign_shift_nor_scale_matter():
    x = vectors("plain", 5, 40)
    distances = cross_distances(x, -1e-6 * x + 3e-6, "distance_correlation", precision=torch.float64).diagonal()
    assert distances.abs().max() < 1e-6
    assert (cross_distances(x, -x, "pearson").diagonal() > 1.99).all()


def test_similarity_is_never_above_one_or_undefined(form):
    x = vectors("ties", 1, 200).repeat(300, 1) * torch.rand(300, 1, generator=torch.Generator().manual_seed(0))
    distances = distance_matrix(x, "distance_correlation")
    assert (distances >= 0).all()
    assert (distances < 2e-6).all()


def test_values_all_equal_but_one_have_no_u_statistic(form, dcor):
    x = vectors("plain", 3, 12)
    x[1] = torch.eye(12)[4]
    assert dcor.u_distance_correlation_sqr(x[0].double().numpy(), x[1].double().numpy()) == pytest.approx(0, abs=1e-6)
    distances = distance_matrix(x, "distance_correlation_u")
    assert distances[0, 1] == distances[1, 2] == 1


@pytest.mark.parametrize("size", [2, 3, 36, 37, 300])
def test_both_forms_agree_for_any_number_of_channels_and_objects(size, monkeypatch):
    x, y = vectors("ties", 35, size), vectors("related", 18, size, seed=1)
    x[4] = 7  # constant
    found = {}
    for form, channels in (("products", range(0)), ("sorted", range(size, size + 1))):
        monkeypatch.setattr(correlation, "SORTED", channels)
        found[form] = [
            torch.cat([f(a, "distance_correlation", budget=budget).flatten() for budget in (2**29, 2**16)])
            for f, a in ((distance_matrix, x), (lambda a, *b, **c: cross_distances(a, y, *b, **c), x))
        ]
    for products, values in zip(found["products"], found["sorted"], strict=True):
        torch.testing.assert_close((1 - values) ** 2, (1 - products) ** 2, rtol=0, atol=3e-6)


def test_an_outlier_of_both_vectors_in_one_channel_is_exact():
    x = vectors("plain", 8, 320)
    x[:, 5] = torch.tensor([256.0, -130, 4000, 1e5, 30, -4000, 256, 3])
    found = squared(distance_matrix(x, "distance_correlation"))
    np.testing.assert_allclose(found, every_pair(reference.squared_v, x), rtol=0, atol=2e-6)


def test_threads_do_not_change_sorted_values():
    x, before = vectors("heavy tails", 40, 256), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(distance_matrix(x, "distance_correlation"))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("longest", [1, 3, 7, 20, 100])
def test_tiles_cover_every_pair_of_values_once_or_both_ways_at_half_weight(longest):
    weights = np.zeros((7, 7))
    for i, j in tiles(7, longest):
        weight = np.ones((i.stop - i.start, j.stop - j.start))
        assert weight.size <= longest
        if i.start == j.start:
            weight[:, : len(weight)] = 0.5
        weights[i, j] += weight
    np.testing.assert_array_equal(weights + weights.T, np.ones((7, 7)))

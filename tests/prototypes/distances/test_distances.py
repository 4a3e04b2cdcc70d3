"""All measures: equal to their definitions, on data that is hard on them, whatever the memory and the arrangement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from diffprobe.errors import UserError
from diffprobe.prototypes.distances import MEASURES, cross_distances, distance_matrix, paired_distances
from tests.prototypes.distances.vectors import KINDS, vectors
from tests.reference import distances as reference

EXAMPLES = {  # euclidean, manhattan, cosine, pearson, distance_correlation
    ((1, 2, 3, 4), (2, 1, 4, 3)): (2.000000, 4, 0.066667, 0.400000, 0.167950),
    ((1, 2, 3, 4), (4, 3, 1, 0)): (5.477226, 10, 0.534525, 1.989949, 0.010783),
    ((1, 0, 2, 1, 5), (2, 2, 0, 1, 1)): (5.000000, 9, 0.545631, 1.434959, 0.369702),
}
SIX_OBJECTS = [[1, 0, 2, 1], [2, 0, 3, 0], [0, 2, 1, 3], [1, 1, 2, 3], [3, 1, 1, 2], [1, 2, 0, 4]]
SMALL = 2**16  # bytes: several blocks, tiles and slabs even of few vectors


@pytest.mark.parametrize(("pair", "expected"), EXAMPLES.items())
def test_worked_examples_to_six_digits(pair, expected):
    x = torch.tensor(pair, dtype=torch.float64)
    found = [float(distance_matrix(x, measure, precision=torch.float64)[0, 1]) for measure in list(MEASURES)[:5]]
    assert [round(value, 6) for value in found] == list(expected)


def test_pearson_distances_of_the_six_worked_objects():
    found = distance_matrix(torch.tensor(SIX_OBJECTS).float(), "pearson", precision=torch.float64)
    sets = {  # pairs by set, objects 1, 2 and 3 in image A, 4 and 5 in B, 6 in C; cats are 1, 2 and 4
        "scsi": ([(0, 1)], [0.183503]),
        "scdi": ([(0, 3), (1, 3), (2, 4), (2, 5), (4, 5)], [0.168478, 0.573599, 0.847106, 1.174078, 1.404520]),
        "dcsi": ([(0, 2), (1, 2), (3, 4)], [1.090909, 1.316228, 1.774597]),
        "dcdi": (
            [(0, 4), (0, 5), (1, 4), (1, 5), (3, 2), (3, 5)],
            [0.325800, 0.439388, 0.941974, 1, 1.478091, 1.878310],
        ),
    }
    for pairs, expected in sets.values():
        assert sorted(round(float(found[pair]), 6) for pair in pairs) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("measure", MEASURES)
def test_equal_to_the_definition(measure, kind):
    x = vectors(kind, 12, 48)
    expected = reference.every(reference.MEASURES[measure], x.double().numpy(), x.double().numpy())
    np.fill_diagonal(expected, 0)
    single, double = (distance_matrix(x, measure, precision=p).numpy() for p in (torch.float32, torch.float64))
    tolerance = 2e-5 if "distance_correlation" in measure else 0  # of the root of a number that is right to 2e-6
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=tolerance)
    np.testing.assert_allclose(double, expected, rtol=1e-9, atol=1e-9 if tolerance else 0)


@pytest.mark.parametrize(
    ("measure", "theirs"),
    [("euclidean", "euclidean"), ("manhattan", "cityblock"), ("cosine", "cosine"), ("pearson", "correlation")],
)
def test_equal_to_scipy(measure, theirs):
    a, b = vectors("plain", 40, 32), vectors("plain", 30, 32, seed=1)
    np.testing.assert_allclose(cross_distances(a, b, measure), cdist(a.double(), b.double(), theirs), rtol=2e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("measure", ["euclidean", "manhattan", "cosine", "pearson"])
def test_near_duplicates_keep_five_digits(measure, offset):
    x = vectors("plain", 20, 64) + offset
    x[10:] = x[:10] + 1e-3 * vectors("plain", 10, 64, seed=1)
    expected = reference.every(reference.MEASURES[measure], *(x.double().numpy() for _ in range(2)))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(distance_matrix(x, measure), expected, rtol=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_duplicates_are_at_distance_zero(measure):
    x = vectors("ties", 8, 32)
    distances = distance_matrix(torch.cat([x, x]), measure)
    # Processors add up float32 numbers in orders of their own; 2e-6 is what the documentation promises.
    assert distances[:8, 8:].diagonal().abs().max() <= (2e-6 if "distance_correlation" in measure else 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_symmetric_with_a_zero_diagonal_to_the_bit(measure):
    distances = distance_matrix(vectors("plain", 600, 8), measure)
    assert torch.equal(distances, distances.T)
    assert (distances.diagonal() == 0).all()


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("measure", MEASURES)
def test_memory_budget_does_not_change_the_result(measure, precision):
    x = vectors("related", 300, 24)
    whole, pieces = (distance_matrix(x, measure, precision=precision, budget=budget) for budget in (2**29, SMALL))
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("measure", MEASURES)
def test_inputs_stay_as_they_were(measure, precision):
    x = vectors("offset", 10, 16).to(precision)
    before = x.clone()
    distance_matrix(x, measure, precision=precision)
    assert torch.equal(x, before)


@pytest.mark.parametrize("measure", MEASURES)
def test_cross_and_paired_distances_are_parts_of_the_matrix(measure):
    x = vectors("heavy tails", 70, 16)
    matrix = distance_matrix(x, measure)
    across = cross_distances(x[:35], x[35:], measure)
    torch.testing.assert_close(across, matrix[:35, 35:], rtol=1e-5, atol=2e-6)
    paired = paired_distances(x[:35], x[35:], measure)
    torch.testing.assert_close(paired, across.diagonal(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("measure", ["cosine", "pearson", "distance_correlation", "distance_correlation_u"])
def test_vectors_without_direction_are_at_distance_one_of_all_others(measure):
    x = vectors("plain", 6, 10)
    x[1], x[4] = (0, 0) if measure == "cosine" else (0, 0.1)
    distances = distance_matrix(x, measure)
    apart = ~torch.eye(6, dtype=torch.bool)
    assert (distances[[1, 4]][apart[[1, 4]]] == 1).all()
    assert (distances.diagonal() == 0).all()
    assert (cross_distances(x, x, measure)[:, [1, 4]] == 1).all()
    others = [0, 2, 3, 5]
    torch.testing.assert_close(distances[others][:, others], distance_matrix(x[others], measure), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_an_outlying_object_does_not_blur_the_others(measure):
    x = vectors("plain", 20, 32)
    alone = distance_matrix(x, measure)
    with_outlier = distance_matrix(torch.cat([x, 1e5 * vectors("plain", 1, 32, seed=1)]), measure)
    torch.testing.assert_close(with_outlier[:20, :20], alone, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_half_precision_prototypes_are_taken_as_they_are(measure):
    x = vectors("plain", 12, 32).bfloat16()
    torch.testing.assert_close(distance_matrix(x, measure), distance_matrix(x.float(), measure), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_few_objects(measure):
    x = vectors("plain", 3, 8)
    assert distance_matrix(x[:0], measure).shape == (0, 0)
    assert distance_matrix(x[:1], measure).tolist() == [[0]]
    assert cross_distances(x, x[:0], measure).shape == (3, 0)
    assert paired_distances(x[:0], x[:0], measure).shape == (0,)


def test_products_are_full_precision_whatever_the_run_allows():
    x = vectors("plain", 64, 64)
    expected = distance_matrix(x, "distance_correlation")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(distance_matrix(x, "distance_correlation"), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("measure", MEASURES)
def test_prototypes_that_are_not_finite_are_named(measure, bad):
    x = vectors("plain", 9, 8)
    x[2, 3] = x[7, 0] = bad
    with pytest.raises(UserError, match=r"2 of 9 prototypes, in rows 2, 7"):
        distance_matrix(x, measure)
    with pytest.raises(UserError, match=r"rows 2, 7"):
        paired_distances(vectors("plain", 9, 8), x, measure)


def test_an_unknown_measure_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'hamming'.*euclidean, manhattan, .*distance_correlation_u"):
        distance_matrix(vectors("plain", 3, 8), "hamming")


@pytest.mark.parametrize(("measure", "channels"), [("pearson", 1), ("distance_correlation_u", 3)])
def test_too_few_channels(measure, channels):
    with pytest.raises(UserError, match=f"at least .* channels, these have {channels}"):
        distance_matrix(vectors("plain", 3, channels), measure)


def test_prototypes_of_other_sizes_do_not_pair():
    with pytest.raises(ValueError, match="8 and 9 channels"):
        cross_distances(vectors("plain", 3, 8), vectors("plain", 3, 9), "cosine")
    with pytest.raises(ValueError, match="3 and 4"):
        paired_distances(vectors("plain", 3, 8), vectors("plain", 4, 8), "cosine")

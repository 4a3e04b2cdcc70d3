from __future__ import annotations

from dataclasses import astuple
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, rankdata, wasserstein_distance

from diffprobe.prototypes.pair_tests import joint_order


def drawn(seed: int, levels: int) -> list[np.ndarray]:
    """Four ascending sets of very different sizes; few levels make many ties."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.integers(0, levels, size).astype(np.float32) / 8) for size in (1, 40, 7, 150)]


def summed_ties(values: np.ndarray) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts**3 - counts).sum())


@pytest.mark.parametrize("levels", [1, 5, 60, 100_000])
@pytest.mark.parametrize("chunk", [1, 3, 64, 1000])
def test_the_common_order_equals_scipy_for_every_chunk(levels: int, chunk: int) -> None:
    sets = drawn(levels, levels)
    found = joint_order(sets, chunk=chunk)
    pooled = np.concatenate(sets)
    for a, b in permutations(range(4), 2):
        assert found.wins[a, b] == mannwhitneyu(sets[b], sets[a]).statistic
        assert found.pair_ties[a, b] == summed_ties(np.concatenate([sets[a], sets[b]]))
        assert found.wasserstein[a, b] == pytest.approx(wasserstein_distance(sets[a], sets[b]), abs=1e-9)
    assert found.ties == summed_ties(pooled)
    ranks = np.split(rankdata(pooled), np.cumsum([len(values) for values in sets])[:-1])
    assert found.mean_ranks() == pytest.approx([of_set.mean() for of_set in ranks])


def test_the_order_of_two_sets_is_that_of_them_alone() -> None:
    sets = drawn(3, 20)
    whole, alone = joint_order(sets).of(1, 3), joint_order([sets[1], sets[3]])
    for found, expected in zip(astuple(whole), astuple(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_value_that_occurs_without_end_takes_one_place() -> None:
    sets = [np.zeros(300_000), np.zeros(200_000)]
    found = joint_order(sets, chunk=2)  # a step for every two values would take minutes
    assert found.wins[0, 1] == 300_000 * 200_000 / 2
    assert found.untied() == 0

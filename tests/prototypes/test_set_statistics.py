from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import shapiro

from diffprobe.prototypes import sets as module
from diffprobe.prototypes.sets import SETS, DistanceMatrix, SetStatistics, set_statistics, split_pairs
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, SCALARS, printed


def test_six_objects_have_the_means_and_deviations_worked_out_by_hand() -> None:
    sets = split_pairs(DistanceMatrix(DISTANCES, CLASSES, IMAGES))
    found = [set_statistics(sets[name]) for name in SETS]
    assert [row.n for row in found] == [1, 5, 3, 6]
    assert printed([row.mean or 0 for row in found]) == [0.183503, 0.833556, 1.393911, 1.010594]
    assert printed([row.std or 0 for row in found]) == [0, 0.436359, 0.284468, 0.543373]


@pytest.mark.parametrize(("name", "expected"), [("a", 0.964286), ("b", 0.910990), ("c", 0.928976)])
def test_shapiro_is_as_worked_out_by_hand(name: str, expected: float) -> None:
    assert printed([set_statistics(SCALARS[name]).shapiro_w or 0]) == [expected]


def test_float32_values_are_summed_up_in_float64_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1000)
    values = np.sort((1000 + np.random.default_rng(0).random(4321) * 1e-2).astype(np.float32))
    found, exact = set_statistics(values), values.astype(np.float64)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-14)
    assert found.std == pytest.approx(exact.std(), rel=1e-10)
    assert (found.minimum, found.maximum) == (exact.min(), exact.max())
    assert found.radius == pytest.approx(np.abs(exact - exact.mean()).max(), rel=1e-9)


def test_shapiro_of_many_values_is_that_of_a_seeded_subsample() -> None:
    values = np.sort(np.random.default_rng(1).standard_exponential(20_000))
    first, again, other = (set_statistics(values, seed=seed).shapiro_w for seed in (0, 0, 1))
    assert first == again != other
    fresh = shapiro(np.random.default_rng(2).standard_exponential(5000)).statistic  # what any 5000 of them give
    assert first == pytest.approx(fresh, abs=0.02)
    few = values[::4]
    assert set_statistics(few).shapiro_w == shapiro(few).statistic


def test_an_empty_set_has_no_statistics_and_raises_nothing() -> None:
    assert set_statistics(np.empty(0, np.float32)) == SetStatistics(0, None, None, None, None, None, None)


@pytest.mark.parametrize("count", [1, 2, 7, 6000])
def test_equal_values_deviate_by_nothing_at_all(count: int) -> None:
    value = float(np.float32(0.1))
    found = set_statistics(np.full(count, 0.1, np.float32))
    assert found == SetStatistics(count, value, 0, value, value, 0, None)

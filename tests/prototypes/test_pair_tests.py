from __future__ import annotations

from itertools import combinations
from math import erfc

import numpy as np
import pytest
from scipy.stats import chi2, kruskal, norm, rankdata, wasserstein_distance

from diffprobe.prototypes import pair_tests as module
from diffprobe.prototypes.pair_tests import PairTest, joint_order, pair_tests, two_sided
from diffprobe.prototypes.sets import SETS, DistanceMatrix, split_pairs
from diffprobe.statistics.differences import holm
from tests.prototypes.worked_examples import CLASSES, DISTANCES, IMAGES, SCALARS, printed
from tests.reference import distance_sets


def column(rows: list[PairTest], statistic: str, cell: str = "value") -> list[float]:
    """A cell of every pair's row of the statistic."""
    return [getattr(row, cell) for row in rows if row.statistic == statistic]


def drawn(seed: int, levels: int | None = None) -> dict[str, np.ndarray]:
    """Four sets in float32; with few levels, tied."""
    rng = np.random.default_rng(seed)
    sets = {name: rng.normal(mean, 1, size) for name, mean, size in zip(SETS, range(4), (9, 60, 12, 200), strict=True)}
    if levels:
        sets = {name: np.round(values * levels) / levels for name, values in sets.items()}
    return {name: np.sort(values.astype(np.float32)) for name, values in sets.items()}


def test_scalar_sets_have_the_statistics_worked_out_by_hand() -> None:
    rows = pair_tests(SCALARS)
    assert [(row.set_a, row.set_b) for row in rows if row.statistic == "auc"] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert printed(column(rows, "kruskal")) == [4.5, 2.688889, 1.5]
    assert printed(column(rows, "kruskal", "p")) == [0.033895, 0.101050, 0.220671]
    assert printed(column(rows, "auc")) == [1, 0.866667, 0.25]
    assert printed(column(rows, "cliffs_delta")) == [1, 0.733333, -0.5]
    assert printed(column(rows, "wasserstein")) == [0.516667, 0.306667, 0.21]
    assert printed(column(rows, "posthoc_dunn", "p")) == [0.016819, 0.135230, 0.273236]
    assert printed(column(rows, "posthoc_dunn", "p_holm")) == [0.050456, 0.270461, 0.273236]
    assert printed(column(rows, "dunn_paper")) == [2.066667, 1.179487, 0.807692]


def test_three_sets_have_the_joint_statistic_worked_out_by_hand() -> None:
    found = module.kruskal(joint_order(list(SCALARS.values())))
    assert found is not None
    assert printed([found, float(chi2.sf(found, 2))]) == [5.721795, 0.057217]


def test_six_objects_have_the_statistics_worked_out_by_hand() -> None:
    rows = pair_tests(split_pairs(DistanceMatrix(DISTANCES, CLASSES, IMAGES)))
    assert printed(column(rows, "kruskal")) == [0.771429, 1.8, 2.25, 1.8, 0.3, 1.066667]
    assert printed(column(rows, "kruskal", "p")) == [0.379775, 0.179712, 0.133614, 0.179712, 0.583882, 0.301700]
    assert printed(column(rows, "auc")) == [0.8, 1, 1, 0.8, 0.6, 0.277778]
    assert printed(column(rows, "dunn_paper")) == [0.977408, 3.179548, 0.953181, 0.842541, 0.204028, 0.441754]


def test_p_below_the_smallest_float_keeps_its_logarithm() -> None:
    assert printed([two_sided(2000**0.5)[1]]) == [-436.043274]
    apart = {"near": np.arange(4000.0), "far": np.arange(5000.0, 9000.0)}
    (row,) = [row for row in pair_tests(apart) if row.statistic == "kruskal"]
    assert (row.p, row.p_holm) == (0, 0)
    assert row.log10_p == pytest.approx(norm.logsf((row.value or 0) ** 0.5) / np.log(10) + np.log10(2))


def test_p_above_it_agrees_with_its_logarithm() -> None:
    for z in (0.0, 0.3, -2.0, 9.0, 30.0):
        p, log10_p = two_sided(z)
        assert p == pytest.approx(erfc(abs(z) / 2**0.5), rel=1e-12)
        assert 10**log10_p == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("levels", [None, 1, 4])
def test_rank_tests_and_effects_equal_scipy_with_and_without_ties(levels: int | None) -> None:
    sets = drawn(0, levels)
    rows = pair_tests(sets)
    exact = {name: values.astype(float) for name, values in sets.items()}  # scipy ranks float32 in float32
    pairs = [(exact[a], exact[b]) for a, b in combinations(SETS, 2)]
    expected = [kruskal(a, b) for a, b in pairs]
    assert column(rows, "kruskal") == pytest.approx([test.statistic for test in expected], rel=1e-10)
    assert column(rows, "kruskal", "p") == pytest.approx([test.pvalue for test in expected], rel=1e-9)
    assert column(rows, "kruskal", "p_holm") == pytest.approx(holm([test.pvalue for test in expected]), rel=1e-9)
    assert column(rows, "auc") == pytest.approx([distance_sets.auc(a, b) for a, b in pairs])
    assert column(rows, "wasserstein") == pytest.approx([wasserstein_distance(a, b) for a, b in pairs])


@pytest.mark.parametrize("levels", [None, 1])
def test_the_posthoc_test_equals_its_formula_on_joint_ranks(levels: int | None) -> None:
    sets = drawn(1, levels)
    pooled = np.concatenate(list(sets.values())).astype(np.float64)  # of which scipy makes the ranks' type
    n, counts = len(pooled), np.unique(pooled, return_counts=True)[1]
    ranks = dict(zip(sets, np.split(rankdata(pooled), np.cumsum([len(v) for v in sets.values()])[:-1]), strict=True))
    variance = n * (n + 1) / 12 - (counts**3 - counts).sum() / (12 * (n - 1))
    expected = [
        (ranks[b].mean() - ranks[a].mean()) / (variance * (1 / len(ranks[a]) + 1 / len(ranks[b]))) ** 0.5
        for a, b in combinations(SETS, 2)
    ]
    rows = pair_tests(sets)
    assert column(rows, "posthoc_dunn") == pytest.approx(expected, rel=1e-9)
    assert column(rows, "posthoc_dunn", "p") == pytest.approx(2 * norm.sf(np.abs(expected)), rel=1e-8)


def test_pairs_with_an_empty_set_have_no_rows() -> None:
    sets = drawn(2) | {"scsi": np.empty(0, np.float32)}
    rows = pair_tests(sets)
    assert {(row.set_a, row.set_b) for row in rows} == set(combinations(SETS[1:], 2))
    assert column(rows, "kruskal", "p_holm") == pytest.approx(holm(column(rows, "kruskal", "p")))
    assert pair_tests({"scsi": sets["scsi"], "scdi": sets["scdi"]}) == []


def test_sets_of_one_value_alone_have_effects_but_no_test() -> None:
    same = pair_tests({"scdi": np.full(3, 0.1, np.float32), "dcdi": np.full(50, 0.1, np.float32)})
    found = {row.statistic: row for row in same}
    assert (found["auc"].value, found["cliffs_delta"].value, found["wasserstein"].value) == (0.5, 0, 0)
    for name in ("kruskal", "posthoc_dunn", "dunn_paper"):
        assert (found[name].value, found[name].p, found[name].p_holm) == (None, None, None)


def test_without_ties_the_rank_test_is_a_function_of_the_auc() -> None:
    sets = drawn(3)
    rows = pair_tests(sets)
    sizes = [(len(sets[a]), len(sets[b])) for a, b in combinations(SETS, 2)]
    aucs = column(rows, "auc")
    expected = [12 * n * m * (auc - 0.5) ** 2 / (n + m + 1) for (n, m), auc in zip(sizes, aucs, strict=True)]
    assert column(rows, "kruskal") == pytest.approx(expected, rel=1e-9)

"""How two sets of distances differ: rank tests, effect sizes and Dunn's indices for every pair of sets.

The p-values take distances for independent, as the papers do. They are not, since pairs share objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

import numpy as np
from scipy import special

from diffprobe.prototypes.dunn import cluster, dunn_indices
from diffprobe.prototypes.joint_order import JointOrder, joint_order
from diffprobe.statistics import holm


@dataclass(frozen=True, slots=True)
class PairTest:
    """One statistic of two sets; `value` is None where it is undefined.

    `p_holm` is `p` adjusted for the pairs of sets by this statistic; effect sizes have no p.
    """

    set_a: str
    set_b: str
    statistic: str
    value: float | None
    p: float | None = None
    log10_p: float | None = None
    p_holm: float | None = None


def pair_tests(sets: Mapping[str, np.ndarray]) -> list[PairTest]:
    """Every statistic of every pair of sets, pair by pair. sets: values [n], ascending, by name.

    Empty sets have no rows. Statistics: `kruskal`, Kruskal and Wallis's (1952) H of the two; `auc`, P(second > first),
    ties half; `cliffs_delta`, 2 auc - 1 (Cliff 1993); `wasserstein`, the Wasserstein-1 distance; `posthoc_dunn`, Dunn's
    (1964) z, positive where the second set ranks higher among all sets; and the indices of `dunn.dunn_indices`.
    """
    named = {name: values for name, values in sets.items() if len(values)}
    if len(named) < 2:
        return []
    names = list(named)
    pairs = list(combinations(range(len(names)), 2))
    order = joint_order(list(named.values()))
    clusters = [cluster(values) for values in named.values()]
    rank_tests = [kruskal(order.of(a, b)) for a, b in pairs]
    posthoc = [posthoc_dunn(order, a, b) for a, b in pairs]
    rank_p = _p_values([None if h is None else h**0.5 for h in rank_tests])
    posthoc_p = _p_values(posthoc)
    found: list[PairTest] = []
    for row, (a, b) in enumerate(pairs):
        auc = float(order.wins[a, b] / (order.sizes[a] * order.sizes[b]))
        cells: dict[str, tuple[float | None, ...]] = {
            "kruskal": (rank_tests[row], *rank_p[row]),
            "auc": (auc,),
            "cliffs_delta": (2 * auc - 1,),
            "wasserstein": (float(order.wasserstein[a, b]),),
            "posthoc_dunn": (posthoc[row], *posthoc_p[row]),
        }
        cells |= {name: (value,) for name, value in dunn_indices(clusters[a], clusters[b]).items()}
        found += [PairTest(names[a], names[b], name, *row_cells) for name, row_cells in cells.items()]
    return found


def kruskal(order: JointOrder) -> float | None:
    """Kruskal and Wallis's (1952) H of all sets of the order, corrected for ties; None when all values are equal.

    Of two sets without ties, H = 12 n m (AUC - 1/2)^2 / (n + m + 1), and p that of the normal deviate sqrt(H).
    """
    n, untied = float(order.sizes.sum()), order.untied()
    above = order.mean_ranks() - (n + 1) / 2
    return float(12 * (order.sizes @ above**2) / (n * (n + 1)) / untied) if untied else None


def posthoc_dunn(order: JointOrder, first: int, second: int) -> float | None:
    """Dunn's (1964) z of two sets by their mean ranks among all sets, corrected for ties; None when all are equal."""
    n, untied, ranks = float(order.sizes.sum()), order.untied(), order.mean_ranks()
    variance = n * (n + 1) / 12 * untied * (1 / order.sizes[first] + 1 / order.sizes[second])
    return float((ranks[second] - ranks[first]) / variance**0.5) if untied else None


def two_sided(z: float) -> tuple[float, float]:
    """p of a normal deviate and its base-10 logarithm, which is finite where p is too small for a float."""
    return 2 * float(special.ndtr(-abs(z))), (log(2) + float(special.log_ndtr(-abs(z)))) / log(10)


def _p_values(deviates: Sequence[float | None]) -> list[tuple[float | None, float | None, float | None]]:
    """(p, log10 p, Holm-adjusted p) of the tests of one family; undefined ones do not count in it."""
    found = [None if z is None else two_sided(z) for z in deviates]
    adjusted = iter(holm([test[0] for test in found if test is not None]))
    return [(None, None, None) if test is None else (*test, next(adjusted)) for test in found]

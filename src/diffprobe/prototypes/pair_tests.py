"""How two sets of distances differ: rank tests, effect sizes and Dunn's indices for every pair of sets.

The p-values take distances for independent, as the papers do. They are not, since pairs share objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

import numpy as np
from scipy import special

from diffprobe.prototypes.sets import deviations, mean_of
from diffprobe.statistics.differences import holm

_CHUNK = 1 << 20
_ROUNDING = 1e-12  # of sums of cubes; one value of n that differs from the rest leaves 3 / n


@dataclass(frozen=True, slots=True)
class Cluster:
    """Values [n], ascending, with their mean and their size by each variant of Dunn's index."""

    values: np.ndarray
    mean: float
    sizes: dict[str, float]


def cluster(values: np.ndarray) -> Cluster:
    """Mean and sizes of a set. values: [n > 0], ascending.

    Sizes, by the name of the index: `dunn_paper` the radius, that is the largest deviation from the mean;
    `dunn_textbook` and `dunn_centroid_range` the range; `_halfrange` half of it; `_meanpair` the mean distance of two
    values; `_2mad` twice the mean absolute deviation from the mean; `_2std` twice the standard deviation (ddof 0).
    """
    n, mean, low, high = len(values), mean_of(values), float(values[0]), float(values[-1])
    squares = absolute = pairs = 0.0
    start = 0
    for part in deviations(values, mean):
        # The sum of x_j - x_i over i < j: the value of rank r (from 0) is the greater one of r pairs, the smaller of
        # n - 1 - r
        pairs += float((2 * np.arange(start, start + len(part)) - (n - 1)) @ part)
        squares += float(part @ part)
        absolute += float(np.abs(part).sum())
        start += len(part)
    sizes = {
        "dunn_paper": max(mean - low, high - mean),
        "dunn_textbook": high - low,
        "dunn_centroid_range": high - low,
        "dunn_centroid_halfrange": (high - low) / 2,
        "dunn_centroid_meanpair": 2 * pairs / (n * (n - 1)) if n > 1 else 0.0,
        "dunn_centroid_2mad": 2 * absolute / n,
        "dunn_centroid_2std": 2 * (squares / n) ** 0.5,
    }
    return Cluster(values, mean, sizes)


def dunn_indices(first: Cluster, second: Cluster) -> dict[str, float | None]:
    """Every variant: distance of the two sets over the larger of their sizes; None where both sizes are 0.

    The distance is that of the means, but for `dunn_textbook` that of the nearest values (Dunn 1973). `dunn_paper` is
    torchmetrics' DunnIndex. All fall as sets grow, since the extremes of more values lie further out.
    """
    found: dict[str, float | None] = {}
    for name in first.sizes:
        size = max(first.sizes[name], second.sizes[name])
        distance = nearest(first.values, second.values) if name == "dunn_textbook" else abs(first.mean - second.mean)
        found[name] = distance / size if size else None
    return found


def nearest(first: np.ndarray, second: np.ndarray) -> float:
    """The smallest |a - b| of ascending values a [n] and b [m], in O(n log m) for the shorter one."""
    few, many = sorted((first, second), key=len)
    smallest = np.inf
    for start in range(0, len(few), _CHUNK):
        part = few[start : start + _CHUNK]
        at = np.searchsorted(many, part)
        for neighbours in (many[np.minimum(at, len(many) - 1)], many[np.maximum(at - 1, 0)]):
            smallest = min(smallest, float(np.abs(np.subtract(neighbours, part, dtype=np.float64)).min()))
    return smallest


@dataclass(frozen=True, slots=True)
class JointOrder:
    """How the values of k sets are ordered together. Rows and columns are sets; all counts are float64.

    Attributes:
        sizes: [k].
        wins: [k, k], pairs in which the column's value is greater than the row's, ties half (Mann and Whitney's U).
        pair_ties: [k, k], the sum of t^3 - t over the distinct values, each of which occurs t times in the two sets.
        ties: the same sum for all sets together.
        wasserstein: [k, k], the integral of |F - G| over their distribution functions.
    """

    sizes: np.ndarray
    wins: np.ndarray
    pair_ties: np.ndarray
    ties: float
    wasserstein: np.ndarray

    def mean_ranks(self) -> np.ndarray:
        """Mean rank [k] of each set among all values, from 1, equal values sharing theirs."""
        return self.wins.sum(0) / self.sizes + 0.5  # a rank: values below, ties and the value itself half, plus 1/2

    def untied(self) -> float:
        """1 - ties / (n^3 - n), by which ties shrink the variance of ranks: 0 if all values are equal."""
        n = float(self.sizes.sum())
        share = 1 - self.ties / (n**3 - n)
        return share if share > _ROUNDING else 0.0

    def of(self, first: int, second: int) -> JointOrder:
        """The order of two of the sets alone."""
        pair, both = [first, second], np.ix_([first, second], [first, second])
        ties = float(self.pair_ties[first, second])
        return JointOrder(self.sizes[pair], self.wins[both], self.pair_ties[both], ties, self.wasserstein[both])


def joint_order(sets: Sequence[np.ndarray], *, chunk: int = 1 << 14) -> JointOrder:
    """The order of k sets, each ascending and not empty, in one pass of `chunk` values per set at a time."""
    sizes = np.array([len(values) for values in sets], float)
    wins, cubes, wasserstein = np.zeros((3, len(sets), len(sets)))
    all_cubes = 0.0
    for values, reached in _together(sets, chunk):
        before, counts = reached[:, :-1], np.diff(reached)
        wins += (before + reached[:, 1:]) @ counts.T / 2
        cubes += counts**2 @ counts.T
        all_cubes += float((counts.sum(0) ** 3).sum())
        shares, gaps = before / sizes[:, None], np.diff(values)
        for a, b in combinations(range(len(sets)), 2):
            wasserstein[a, b] += np.abs(shares[a] - shares[b]) @ gaps
    # (s + t)^3 = s^3 + t^3 + 3 s^2 t + 3 s t^2, summed over the values
    own = np.diag(cubes) - sizes
    pair_ties = own[:, None] + own[None, :] + 3 * (cubes + cubes.T)
    np.fill_diagonal(pair_ties, 0)
    return JointOrder(sizes, wins, pair_ties, all_cubes - float(sizes.sum()), wasserstein + wasserstein.T)


def _together(sets: Sequence[np.ndarray], chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pieces of the distinct values [1 + m], ascending, and how many of each set are up to each of them [k, 1 + m].

    The first of a piece is the last of the piece before it. A piece ends at a value that some set reaches after
    `chunk` more of its own; however often this value occurs, it takes no more than one place.
    """
    starts = np.zeros(len(sets), int)
    last: np.ndarray | None = None
    while ahead := [(values, at) for values, at in zip(sets, starts, strict=True) if at < len(values)]:
        cut = min(values[min(at + chunk, len(values)) - 1] for values, at in ahead)
        pieces = [values[at : at + chunk] for values, at in zip(sets, starts, strict=True)]
        pieces = [piece[: np.searchsorted(piece, cut)] for piece in pieces]
        found = np.unique(np.concatenate([*pieces, np.array([cut])]))
        reached = [at + np.searchsorted(piece, found, "right") for piece, at in zip(pieces, starts, strict=True)]
        ends = np.array([np.searchsorted(values, cut, "right") for values in sets])
        counted = np.column_stack([starts, np.stack(reached)]).astype(np.float64)
        counted[:, -1] = ends
        yield np.append(found[:1] if last is None else last, found).astype(np.float64), counted
        last, starts = found[-1:], ends


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
    (1964) z, positive where the second set ranks higher among all sets; and those of `dunn_indices`.
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

"""Several ascending sets in one common order: one pass gives all that rank tests and Wasserstein distances need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

_ROUNDING = 1e-12  # of sums of cubes; one value of n that differs from the rest leaves 3 / n


@dataclass(frozen=True, slots=True)
class JointOrder:
    """Of k sets, rows and columns in their order. All counts are float64.

    `sizes` [k]; `wins` [k, k]: pairs of a value of the row's set and one of the column's in which the column's is the
    greater, ties counted half (Mann and Whitney's U); `pair_ties` [k, k]: the sum of t^3 - t over the distinct values,
    which occur t times in the row's and the column's set together (the diagonal is 0); `ties`: the same for all sets
    together; `wasserstein` [k, k]: the integral of |F - G| over their distribution functions.
    """

    sizes: np.ndarray
    wins: np.ndarray
    pair_ties: np.ndarray
    ties: float
    wasserstein: np.ndarray

    def mean_ranks(self) -> np.ndarray:
        """Mean rank [k] of each set among all values, from 1, equal values sharing theirs.

        A value's rank is the number of values below it, ties half and itself half, plus a half.
        """
        return self.wins.sum(0) / self.sizes + 0.5

    def untied(self) -> float:
        """1 - ties / (n^3 - n), by which ties shrink the variance of ranks: 0 if all values are equal."""
        n = float(self.sizes.sum())
        share = 1 - self.ties / (n**3 - n)
        return share if share > _ROUNDING else 0.0

    def of(self, first: int, second: int) -> JointOrder:
        """The order of two of the sets alone."""
        both = np.ix_([first, second], [first, second])
        ties = float(self.pair_ties[first, second])
        return JointOrder(
            self.sizes[[first, second]], self.wins[both], self.pair_ties[both], ties, self.wasserstein[both]
        )


def joint_order(sets: Sequence[np.ndarray], *, chunk: int = 1 << 14) -> JointOrder:
    """The common order of k sets, each ascending and not empty, in one pass of `chunk` values per set at a time."""
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
    """Distinct values [1 + m], ascending, and how many of each set are up to each of them [k, 1 + m].

    The first of a piece is the last of the piece before it. A piece ends at a value that some set reaches after
    `chunk` more of its own; however often this value occurs, it takes no more than one place.
    """
    starts = np.zeros(len(sets), int)
    last: np.ndarray | None = None
    while ahead := [(values, at) for values, at in zip(sets, starts, strict=True) if at < len(values)]:
        cut = min(values[min(at + chunk, len(values)) - 1] for values, at in ahead)
        pieces = [values[at : at + chunk] for values, at in zip(sets, starts, strict=True)]
        pieces = [piece[: np.searchsorted(piece, cut)] for piece in pieces]
        found = np.concatenate([*pieces, np.array([cut])])
        found.sort()
        found = found[np.append(True, found[1:] != found[:-1])]
        reached = [at + np.searchsorted(piece, found, "right") for piece, at in zip(pieces, starts, strict=True)]
        ends = np.array([np.searchsorted(values, cut, "right") for values in sets])
        counted = np.column_stack([starts, np.stack(reached)]).astype(np.float64)
        counted[:, -1] = ends
        yield np.append(found[:1] if last is None else last, found).astype(np.float64), counted
        last, starts = found[-1:], ends

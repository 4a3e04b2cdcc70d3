"""How the distances of the four sets are distributed: counts, however many pairs there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffprobe.tables import Step

BINS = 60


@dataclass(frozen=True)
class SetHistogram:
    """The distances of one set at one layer and step with one measure.

    Attributes:
        edges: [bins + 1], rising, the same for all sets that are compared.
        counts: [bins], distances in each bin.
    """

    layer: str
    step: Step
    measure: str
    set: str
    edges: np.ndarray
    counts: np.ndarray

    @property
    def pairs(self) -> int:
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The distance below which this share of pairs lies, to a fraction of a bin."""
        return float(np.interp(share * self.pairs, np.concatenate([[0], np.cumsum(self.counts)]), self.edges))


def set_histograms(
    distances: Mapping[str, np.ndarray], layer: str, step: Step, measure: str, bins: int = BINS
) -> list[SetHistogram]:
    """Counts the distances of every set in common bins.

    Args:
        distances: set -> its distances in rising order, as `split_pairs` gives them: they are looked up, not read.
    """
    filled = [values for values in distances.values() if len(values)]
    if not filled:
        return []
    low, high = min(float(values[0]) for values in filled), max(float(values[-1]) for values in filled)
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    return [
        SetHistogram(layer, step, measure, name, edges, np.diff(_places(values, edges)))
        for name, values in distances.items()
    ]


def _places(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """How many sorted values lie before each edge; the last edge belongs to the last bin."""
    inner = np.searchsorted(values, edges[:-1].astype(values.dtype))  # of one type, or all values would be copied
    return np.concatenate([inner, [len(values)]])

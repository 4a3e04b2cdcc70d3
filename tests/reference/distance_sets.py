"""The sets of object pairs and the statistics of two sets, each written as it is defined."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def split_pairs(distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {"scsi": [], "scdi": [], "dcsi": [], "dcdi": []}
    for a, b in combinations(range(len(classes)), 2):
        class_letter = "s" if classes[a] == classes[b] else "d"
        image_letter = "s" if images[a] == images[b] else "d"
        found[f"{class_letter}c{image_letter}i"].append(distances[a, b])
    return {name: np.array(sorted(values), distances.dtype) for name, values in found.items()}


def auc(first: np.ndarray, second: np.ndarray) -> float:
    """P(second > first), ties half."""
    return float(np.mean([(b > a) + 0.5 * (b == a) for a in first for b in second]))


def dunn_indices(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Every variant of Dunn's index, from all pairs of values."""

    def largest(size) -> float:
        return max(size(first.astype(float)), size(second.astype(float)))

    gap = min(abs(float(a) - float(b)) for a in first for b in second)
    between = abs(first.mean(dtype=float) - second.mean(dtype=float))
    return {
        "dunn_paper": between / largest(lambda values: np.abs(values - values.mean()).max()),
        "dunn_textbook": gap / largest(np.ptp),
        "dunn_centroid_range": between / largest(np.ptp),
        "dunn_centroid_halfrange": between / largest(lambda values: np.ptp(values) / 2),
        "dunn_centroid_meanpair": between
        / largest(lambda values: np.mean([abs(a - b) for a, b in combinations(values, 2)])),
        "dunn_centroid_2mad": between / largest(lambda values: 2 * np.abs(values - values.mean()).mean()),
        "dunn_centroid_2std": between / largest(lambda values: 2 * values.std()),
    }

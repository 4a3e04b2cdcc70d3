"""Small data whose statistics are known to six digits."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist, squareform

SCALARS = {
    "a": np.array([0.1, 0.2, 0.4]),
    "b": np.array([0.5, 0.6, 0.9, 1.0]),
    "c": np.array([0.3, 0.35, 0.55, 0.7, 0.8]),
}

# Image 0: cat, cat, dog; image 1: cat, dog; image 2: dog
PROTOTYPES = np.array([[1, 0, 2, 1], [2, 0, 3, 0], [0, 2, 1, 3], [1, 1, 2, 3], [3, 1, 1, 2], [1, 2, 0, 4]], float)
CLASSES = np.array([0, 0, 1, 0, 1, 1])
IMAGES = np.array([0, 0, 0, 1, 1, 2])
DISTANCES = squareform(pdist(PROTOTYPES, "correlation"))  # 1 - Pearson [6, 6]


def printed(values: list[float]) -> list[float]:
    """To the six digits that the examples are given with."""
    return [round(value, 6) for value in values]

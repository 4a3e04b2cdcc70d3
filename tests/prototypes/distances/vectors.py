"""Vectors that distances have trouble with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

KINDS = ("plain", "related", "ties", "heavy tails", "offset", "outliers")


def vectors(kind: str, count: int, size: int, seed: int = 0) -> Tensor:
    """[count, size] in float32."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, size))
    if kind == "related":  # a shared factor, bent
        values = values + 2 * np.abs(random.standard_normal(size)) * np.linspace(-1, 1, count)[:, None]
    elif kind == "ties":  # as after a ReLU
        values = np.maximum(values, 0)
    elif kind == "heavy tails":
        values = random.standard_t(1.5, (count, size))
    elif kind == "offset":
        values = values + 100
    elif kind == "outliers":
        values[np.arange(count), np.arange(count) % size] *= 100
    return torch.from_numpy(values).float()

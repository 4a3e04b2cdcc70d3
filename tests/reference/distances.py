"""Distances of two vectors the slow way, in float64, as their definitions say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def euclidean(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(((x - y) ** 2).sum()))


def manhattan(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.abs(x - y).sum())


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """1 - cos as |x/|x| - y/|y||^2 / 2: the same, with digits left where x and y are close."""
    return float(((x / np.sqrt((x * x).sum()) - y / np.sqrt((y * y).sum())) ** 2).sum() / 2)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    return cosine(x - x.mean(), y - y.mean())


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    return 1 - float(np.sqrt(squared_v(x, y)))


def distance_correlation_u(x: np.ndarray, y: np.ndarray) -> float:
    return 1 - squared_u(x, y)


def squared_v(x: np.ndarray, y: np.ndarray) -> float:
    """dCor^2: the cosine between doubly centred distance matrices."""
    return _cosine(*(_centred(z) for z in (x, y)))


def squared_u(x: np.ndarray, y: np.ndarray) -> float:
    """Bias-corrected dCor^2: the cosine between U-centred distance matrices."""
    return _cosine(*(_u_centred(z) for z in (x, y)))


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "euclidean": euclidean,
    "manhattan": manhattan,
    "cosine": cosine,
    "pearson": pearson,
    "distance_correlation": distance_correlation,
    "distance_correlation_u": distance_correlation_u,
}


def every(measure: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`measure` of each row of a with each row of b: [n, m]."""
    return np.array([[measure(x, y) for y in b] for x in a])


def _distances(x: np.ndarray) -> np.ndarray:
    return np.abs(x[:, None] - x[None])


def _centred(x: np.ndarray) -> np.ndarray:
    a = _distances(x)
    return a - a.mean(0) - a.mean(1)[:, None] + a.mean()


def _u_centred(x: np.ndarray) -> np.ndarray:
    a, size = _distances(x), len(x)
    centred = a - a.sum(0) / (size - 2) - a.sum(1)[:, None] / (size - 2) + a.sum() / ((size - 1) * (size - 2))
    np.fill_diagonal(centred, 0)
    return centred


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))

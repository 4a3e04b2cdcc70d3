"""Linear CKA of stored activations, slow and obviously right."""

from __future__ import annotations

from itertools import permutations

import numpy as np


def textbook_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Of samples [n, p] and [n, q], which are independent: Kornblith et al. 2019, equation 3, with centred features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


def textbook_debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Of independent samples [n, p] and [n, q]: with the unbiased HSIC of Song et al. 2012, equation 5."""
    return _song(x, y) / np.sqrt(_song(x, x) * _song(y, y))


def _song(x: np.ndarray, y: np.ndarray) -> float:
    k, l = x @ x.T, y @ y.T  # noqa: E741 (as in the paper)
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    n, ones = len(k), np.ones(len(k))
    last = 2 / (n - 2) * ones @ k @ l @ ones
    product = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(k @ l) + product - last) / (n * (n - 3)))


def cka_between_images(x: np.ndarray, y: np.ndarray) -> float:
    """Of activations [images, tokens, p] and [images, tokens, q]: every pair, triple and quadruple of images by itself,
    with the means over all of their tokens."""
    return _between_images(x, y) / np.sqrt(_between_images(x, x) * _between_images(y, y))


def _between_images(x: np.ndarray, y: np.ndarray) -> float:
    images = range(len(x))
    two = [((x[a] @ x[b].T) * (y[a] @ y[b].T)).mean() for a, b in permutations(images, 2)]
    three = [
        np.mean([(x[a][t] @ x[b].T).mean() * (y[a][t] @ y[c].T).mean() for t in range(x.shape[1])])
        for a, b, c in permutations(images, 3)
    ]
    four = [(x[a] @ x[b].T).mean() * (y[c] @ y[d].T).mean() for a, b, c, d in permutations(images, 4)]
    return float(np.mean(two) - 2 * np.mean(three) + np.mean(four))

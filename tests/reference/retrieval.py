"""Silhouettes, votes of nearest objects and average precisions, one query after the other."""

from __future__ import annotations

import numpy as np


def object_scores(distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> dict[str, list[float]]:
    queries = range(len(classes))
    return {
        "silhouette": [silhouette(query, distances, classes) for query in queries],
        "knn_accuracy": [hit(query, distances, classes, images, 1) for query in queries],
        "knn_accuracy_5": [hit(query, distances, classes, images, 5) for query in queries],
        "mean_average_precision": [average_precision(query, distances, classes, images) for query in queries],
    }


def silhouette(query: int, distances: np.ndarray, classes: np.ndarray) -> float:
    own = [other for other in range(len(classes)) if classes[other] == classes[query] and other != query]
    means = [distances[query, classes == other].mean(dtype=float) for other in set(classes) - {classes[query]}]
    if not means:
        return np.nan
    if not own:
        return 0.0
    inside, outside = distances[query, own].mean(dtype=float), min(means)
    return (outside - inside) / max(inside, outside) if max(inside, outside) else 0.0


def ranked(query: int, distances: np.ndarray, images: np.ndarray) -> list[int]:
    """The objects of other images, nearest first and the first of equals first."""
    others = [other for other in range(len(images)) if images[other] != images[query]]
    return sorted(others, key=lambda other: distances[query, other])


def hit(query: int, distances: np.ndarray, classes: np.ndarray, images: np.ndarray, k: int) -> float:
    voters = [classes[other] for other in ranked(query, distances, images)[:k]]
    if not voters:
        return np.nan
    return float(max(voters, key=lambda label: (voters.count(label), -voters.index(label))) == classes[query])


def average_precision(query: int, distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> float:
    gallery = ranked(query, distances, images)
    precisions = []
    for relevant in gallery:
        if classes[relevant] == classes[query]:
            as_far = [other for other in gallery if distances[query, other] <= distances[query, relevant]]
            precisions.append(np.mean([classes[other] == classes[query] for other in as_far]))
    return float(np.mean(precisions)) if precisions else np.nan

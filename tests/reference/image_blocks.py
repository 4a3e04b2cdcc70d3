"""Statistics of sets of pairs, one pair after the other: images swap labels, or are drawn several times."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np


def weighted_sets(
    distances: np.ndarray, classes: np.ndarray, images: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """The distances of each set, each repeated as often as its pair counts; counts [images]."""
    sets: dict[str, list[float]] = {"scsi": [], "scdi": [], "dcsi": [], "dcdi": []}
    for a, b in combinations(range(len(classes)), 2):
        together = images[a] == images[b]
        times = counts[images[a]] if together else counts[images[a]] * counts[images[b]]
        name = ("sc" if classes[a] == classes[b] else "dc") + ("si" if together else "di")
        sets[name] += [distances[a, b]] * int(times)
    return {name: np.array(values) for name, values in sets.items()}


def auc(first: np.ndarray, second: np.ndarray) -> float:
    """P(first < second) + P(equal) / 2."""
    return float(np.mean([(a < b) + (a == b) / 2 for a in first for b in second]))


def auc_of(pair: tuple[str, str], distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> float:
    """The AUC of a pair of sets, every pair of objects once."""
    sets = weighted_sets(distances, classes, images, np.ones(images.max() + 1))
    return auc(sets[pair[0]], sets[pair[1]])


def labelings_between(classes: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """Every way in which images with equally many objects can swap their labels; `images` ascending."""
    objects = [np.flatnonzero(images == image) for image in range(images.max() + 1)]
    sizes = {len(of_image) for of_image in objects}
    groups = [[of_image for of_image in objects if len(of_image) == size] for size in sizes]
    found = []
    for order in product(*(permutations(group) for group in groups)):
        labels = classes.copy()
        for group, sources in zip(groups, order, strict=True):
            for target, source in zip(group, sources, strict=True):
                labels[target] = classes[source]
        found.append(labels)
    return found


def labelings_within(classes: np.ndarray, images: np.ndarray) -> list[np.ndarray]:
    """Every way in which the labels of each image can be dealt out among its objects; `images` ascending."""
    parts = [permutations(classes[images == image]) for image in range(images.max() + 1)]
    return [np.concatenate(labels) for labels in product(*parts)]

"""A made-up analysis of objects: layers in network order, steps, four sets, their tests, drift and video."""

from __future__ import annotations

import numpy as np

from diffprobe.analyses.drift.drift import DriftRow
from diffprobe.analyses.separation.figures import RetrievalExample, ShownObject
from diffprobe.prototypes.collecting import ObjectRow
from diffprobe.prototypes.separation import SetRow, TestRow
from diffprobe.prototypes.sets import PAIRS, SETS

ENCODER = "encoder16"
FIRST, SECOND = "down_blocks.2.resnets.0", "down_blocks.2.resnets.1"
MEANS = {"scsi": 0.42, "scdi": 0.61, "dcsi": 0.74, "dcdi": 0.81}
SIZES = {"scsi": 80, "scdi": 4000, "dcsi": 70, "dcdi": 16000}


def make_sets(
    layer: str = ENCODER,
    step: int = 0,
    measure: str = "pearson",
    means: dict[str, float | None] = MEANS,  # type: ignore[assignment]
    model: str = "pocket",
) -> list[SetRow]:
    """One row a set; a mean of None is an empty set."""
    rows = []
    for name in SETS:
        mean = means[name]
        key = (model, layer, step, 0.0, measure, name)
        if mean is None:
            rows.append(SetRow(*key, 0, *[None] * 8))
        else:
            rows.append(SetRow(*key, SIZES[name], mean, 0.1, 0.0, 1.0, 0.5, 0.98, mean - 0.02, mean + 0.02))
    return rows


def make_tests(
    layer: str = ENCODER,
    step: int = 0,
    measure: str = "pearson",
    auc: float = 0.71,
    p: float = 0.001,
    share: float = 0.97,
    log10_p: float = -435.5,
    model: str = "pocket",
) -> list[TestRow]:
    """Kruskal-Wallis and the papers' Dunn index of every pair; AUC, permutation, retrieval and order of the whole."""
    key = (model, layer, step, 0.0, measure)
    rows = []
    for at, pair in enumerate(PAIRS):
        rows.append(TestRow(*key, *pair, "kruskal", 12.5, None, None, 0.0, log10_p, 0.0))
        rows.append(TestRow(*key, *pair, "dunn_paper", 0.1 * (at + 1), None, None, None, None, None))
    between = ("scdi", "dcdi")
    rows.append(TestRow(*key, *between, "auc", auc, auc - 0.04, auc + 0.04, None, None, None))
    rows.append(TestRow(*key, *between, "permutation_between_images", auc, None, None, p, None, min(1, 3 * p)))
    rows.append(TestRow(*key, "", "", "knn_accuracy", 0.64, 0.58, 0.7, None, None, None))
    rows.append(TestRow(*key, "", "", "mean_average_precision", 0.45, 0.41, 0.49, None, None, None))
    rows.append(TestRow(*key, "", "", "order_holds", 1.0, None, None, 1 - share, None, None))
    return rows


def make_objects(labels: str = "aaabbc") -> list[ObjectRow]:
    return [
        ObjectRow(f"scene-{at // 2}#{at % 2}", f"scene-{at // 2}", label, 0.1, "scenes", "", 0, at % 2)
        for at, label in enumerate(labels)
    ]


def make_distances(seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Sorted distances of every set around its mean."""
    noise = np.random.default_rng(seed)
    return {
        name: np.sort(np.abs(noise.normal(MEANS[name] * scale, 0.12, SIZES[name])).astype(np.float32)) for name in SETS
    }


def make_drift(changes: dict[str, list[float]], slope: float = 0.01) -> list[DriftRow]:
    """Distance to oneself grows with strength, up to that of scdi; the sets stay as they are."""
    rows = []
    for change, strengths in changes.items():
        for at, strength in enumerate(strengths):
            key = ("pocket", ENCODER, 0, 0.0, "pearson", change, strength)
            own = 0.05 + 0.55 * (at + 1) / max(4, len(strengths))
            rows.append(DriftRow(*key, "self", 300, own, 0.1, own - 0.03, own + 0.03, None))
            for name in SETS:
                mean = MEANS[name]
                rows.append(DriftRow(*key, name, SIZES[name], mean, 0.1, mean - 0.02, mean + 0.02, 0.99 - own / 2))
    return rows


def make_video(gaps: list[float]) -> list[DriftRow]:
    rows = []
    for at, gap in enumerate(gaps):
        key = ("pocket", ENCODER, 0, 0.0, "pearson", "frame_gap", gap)
        own, accuracy = 0.1 + 0.03 * at, 0.98 - 0.05 * at
        rows.append(DriftRow(*key, "self", 50, own, 0.05, own - 0.02, own + 0.02, None))
        rows.append(DriftRow(*key, "other", 90, 0.6 + 0.002 * at, 0.1, 0.55, 0.65, 0.95))
        rows.append(DriftRow(*key, "reidentification", 50, accuracy, None, accuracy - 0.05, accuracy + 0.02, None))
    return rows


def make_shown(label: str, seed: int, size: int = 48) -> ShownObject:
    """A disc on a noisy ground."""
    noise = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    disc = (x - noise.uniform(0.3, 0.7)) ** 2 + (y - noise.uniform(0.3, 0.7)) ** 2 < 0.05
    picture = np.stack([0.3 + 0.1 * noise.random((size, size))] * 3, axis=-1)
    picture[disc] = noise.random(3)
    return ShownObject(picture, disc[::2, ::2], label)


def make_retrieval(neighbours: str = "sphere sphere cube sphere cone", seed: int = 0) -> RetrievalExample:
    labels = neighbours.split()
    shown = tuple(make_shown(label, seed + 1 + at) for at, label in enumerate(labels))
    return RetrievalExample(make_shown("sphere", seed), shown, tuple(0.1 + 0.05 * at for at in range(len(labels))))

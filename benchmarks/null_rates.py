"""How often each test finds a class effect where there is none: python benchmarks/null_rates.py

Prototypes are drawn with an effect of their image and of their object, and labels without a look at either, so every
rejection is a mistake. A test at level 0.05 should make it in 5 % of the simulations. Prints the table of
docs/statistics.md.

- Kruskal-Wallis: scipy's, on the distances of scdi and dcdi (and of scsi and dcsi) as if pairs were independent;
- free permutation: labels shuffled among all objects as if each were an image of its own;
- between images, within images: the tests of diffprobe.prototypes.resampling;
- interval: whether the 95 % interval over images of AUC(scdi < dcdi) leaves out 1/2 (either side).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kruskal

from diffprobe.prototypes.resampling import between_images, set_intervals, within_images
from diffprobe.prototypes.sets import DistanceMatrix, split_pairs

LEVEL = 0.05
PERMUTATIONS = 199
BALANCED, UNEVEN = (0.2,) * 5, (0.6, 0.1, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class Null:
    """A world without a class effect. `together` is the share of objects that take the main class of their image."""

    name: str
    images: int
    shares: tuple[float, ...]
    together: float


NULLS = (
    Null("balanced classes", 100, BALANCED, 0.0),
    Null("one class 60 %", 100, UNEVEN, 0.0),
    Null("one class 60 %", 200, UNEVEN, 0.0),
    Null("one class 60 %, images of mostly one class", 100, UNEVEN, 0.8),
)


def draw(null: Null, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances [n, n] (1 - Pearson), classes [n] and images [n] of 1 to 4 objects an image."""
    random = np.random.default_rng(seed)
    images = np.repeat(np.arange(null.images), random.integers(1, 5, null.images))
    n, classes = len(images), len(null.shares)
    main = random.choice(classes, null.images, p=null.shares)[images]
    labels = np.where(random.random(n) < null.together, main, random.choice(classes, n, p=null.shares))
    of_image = random.normal(size=(null.images, 32))[images]
    common = random.normal(size=32)  # what all prototypes share, some more than others
    prototypes = random.gamma(2, 0.5, n)[:, None] * common + 1.5 * of_image + random.normal(size=(n, 32))
    return squareform(pdist(prototypes, "correlation")), labels, images


def p_values(null: Null, seed: int, intervals: bool = True) -> dict[str, float]:
    """The p of each test in one simulation; for the interval 0 where it leaves out 1/2, else 1."""
    distances, classes, images = draw(null, seed)
    matrix = DistanceMatrix(distances, classes, images)
    sets = split_pairs(matrix)
    alone = np.arange(len(classes))
    found = {
        "Kruskal-Wallis scdi, dcdi": kruskal(sets["scdi"], sets["dcdi"]).pvalue,
        "free permutation": between_images(DistanceMatrix(distances, classes, alone), PERMUTATIONS, seed).p,
        "between images": between_images(matrix, PERMUTATIONS, seed).p,
        "Kruskal-Wallis scsi, dcsi": kruskal(sets["scsi"], sets["dcsi"]).pvalue,
        "within images": within_images(matrix, PERMUTATIONS, seed).p,
    }
    if intervals:
        auc = set_intervals(matrix).aucs["scdi", "dcdi"]
        if auc.low is not None and auc.high is not None:
            found["interval"] = float(auc.low <= 0.5 <= auc.high)
    return {name: float(p) for name, p in found.items() if p is not None}


def rejections(null: Null, simulations: int, intervals: bool = True) -> dict[str, int]:
    """How many of the simulations each test rejects at LEVEL."""
    drawn = [p_values(null, seed, intervals) for seed in range(simulations)]
    return {name: sum(p[name] <= LEVEL for p in drawn) for name in drawn[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=300)
    simulations = parser.parse_args().simulations
    print(f"rejected of {simulations} simulations without a class effect, in %, at level {100 * LEVEL:.0f} %")
    header = ""
    for null in NULLS:
        found = rejections(null, simulations)
        if not header:
            header = f"| labels | images | {' | '.join(found)} |"
            print(header, "|" + " --- |" * (len(found) + 2), sep="\n")
        cells = " | ".join(f"{100 * count / simulations:.1f}" for count in found.values())
        print(f"| {null.name} | {null.images} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

"""What 5, 8, 20 and 40 images are enough for: python benchmarks/small_samples.py

Draws images whose truth is known, from a normal and from a skewed (exponential) distribution, and counts how often the
95 % interval of every kind that reports print holds the truth, and how often a verdict is claimed where there is none
to be made. Coverage should be 93 % or more, and claims 6 % or fewer. Prints the table of docs/statistics.md; `-` is
"no interval" (too few images) in more than half of the simulations. The standard error of a count is 0.5 to 1.5.

Which numbers of a report each kind stands for is said in docs/statistics.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import pdist, squareform

from diffprobe.analyses.emergence.tables import COMMON, OWN, _lead
from diffprobe.analyses.similarity.cka import Similarities, hsic, normalised
from diffprobe.analyses.similarity.transfer import shares
from diffprobe.properties.metrics import METRICS
from diffprobe.prototypes.resampling import between_images, set_intervals
from diffprobe.prototypes.retrieval import retrieve
from diffprobe.prototypes.sets import DistanceMatrix
from diffprobe.statistics.differences import (
    holm,
    images_needed,
    median_step,
    paired_differences,
    step_differences,
    steps_reaching,
)
from diffprobe.statistics.intervals import SIGNIFICANT, Interval, cluster_mean, mean_intervals, stratified_difference

NUMBERS = (5, 8, 20, 40)
NORMAL, SKEWED = "normal", "skewed"
STEPS = 15
Random = np.random.Generator


@dataclass
class Counts:
    """How many of the intervals that there were held the truth, and how many simulations claimed something."""

    simulations: int = 0
    without: int = 0
    held: int = 0
    claims: int | None = None

    def add(self, low: np.ndarray, high: np.ndarray, truth: float | np.ndarray) -> None:
        """Of many simulations at once, [simulations]; NaN where there is no interval."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        none = np.isnan(low)
        self.simulations += len(low)
        self.without += int(none.sum())
        self.held += int(((low <= truth) & (truth <= high) & ~none).sum())

    def one(self, interval: Interval, truth: float) -> None:
        low, high = (np.nan if end is None else end for end in (interval.low, interval.high))
        self.add(np.array([low]), np.array([high]), truth)

    def claimed(self, how_many: int) -> None:
        self.claims = (self.claims or 0) + int(how_many)

    @property
    def text(self) -> str:
        if not self.simulations:
            return f"{self._claim_text}"
        there = self.simulations - self.without
        covered = f"{100 * self.held / there:.1f}" if 2 * self.without <= self.simulations else "-"
        return covered if self.claims is None else f"{covered} / {self._claim_text}"

    runs: int = field(default=0)

    @property
    def _claim_text(self) -> str:
        return f"{100 * (self.claims or 0) / max(self.runs or self.simulations, 1):.1f}"


def noise(kind: str, random: Random, shape: tuple[int, ...]) -> np.ndarray:
    """Mean 0 and variance 1."""
    return random.normal(size=shape) if kind == NORMAL else random.exponential(size=shape) - 1


Kind = Callable[[str, int, int, Random], Counts]


def mean_score(kind: str, n: int, simulations: int, random: Random) -> Counts:
    found, counts = mean_intervals(noise(kind, random, (simulations, n))), Counts()
    counts.add(found.low, found.high, 0.0)
    return counts


def paired(kind: str, n: int, simulations: int, random: Random) -> Counts:
    found, counts = paired_differences(noise(kind, random, (simulations, n))), Counts()
    counts.add(found.low, found.high, 0.0)
    counts.claimed(((found.p <= SIGNIFICANT) & ((found.low > 0) | (found.high < 0))).sum())
    return counts


def family(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """Five differences from what all share: how often any is claimed, by Holm's p and its interval."""
    shared = noise(kind, random, (simulations, 1, n))
    found = paired_differences((shared + noise(kind, random, (simulations, 5, n))).reshape(-1, n))
    adjusted = np.array([holm(row) for row in found.p.reshape(simulations, 5).tolist()])
    off = ((found.low > 0) | (found.high < 0)).reshape(simulations, 5)
    counts = Counts()
    counts.add(found.low, found.high, 0.0)
    counts.runs = simulations
    counts.claimed(((adjusted <= SIGNIFICANT) & off).any(1).sum())
    return counts


def share_of_images(kind: str, n: int, simulations: int, random: Random) -> Counts:
    share, counts = (0.5 if kind == NORMAL else 0.9), Counts()
    found = mean_intervals((random.random((simulations, n)) < share).astype(float))
    counts.add(found.low, found.high, share)
    return counts


def difference_of_shares(kind: str, n: int, simulations: int, random: Random) -> Counts:
    share = 0.3 if kind == NORMAL else 0.05  # of images on which the one is right and the other is not
    drawn, counts = random.random((simulations, n)), Counts()
    differences = (drawn < share).astype(float) - (drawn > 1 - share)
    found = paired_differences(differences, np.ones(simulations, bool))
    counts.add(found.low, found.high, 0.0)
    counts.claimed(((found.p <= SIGNIFICANT) & ((found.low > 0) | (found.high < 0))).sum())
    return counts


def objects_of(n: int, most: int, random: Random) -> np.ndarray:
    return np.repeat(np.arange(n), random.integers(1, most + 1, n))


def mean_of_objects(kind: str, n: int, simulations: int, random: Random, most: int = 4) -> Counts:
    counts = Counts()
    for _ in range(simulations):
        of = objects_of(n, most, random)
        values = noise(kind, random, (n,))[of] + noise(kind, random, (len(of),))
        counts.one(cluster_mean(values, of), 0.0)
    return counts


def share_of_objects(kind: str, n: int, simulations: int, random: Random, most: int = 4) -> Counts:
    share, counts = (0.5 if kind == NORMAL else 0.9), Counts()
    for _ in range(simulations):
        of = objects_of(n, most, random)
        own = random.beta(3 * share, 3 * (1 - share), n)
        counts.one(cluster_mean((random.random(len(of)) < own[of]).astype(float), of), share)
    return counts


def videos(kind: str, n: int, simulations: int, random: Random) -> Counts:
    return mean_of_objects(kind, n, simulations, random, most=24)


def share_of_sightings(kind: str, n: int, simulations: int, random: Random) -> Counts:
    return share_of_objects(kind, n, simulations, random, most=24)


def rising(speed: float) -> np.ndarray:
    return 1 - 0.9 * np.exp(-np.arange(STEPS) / speed)


def curves(kind: str, n: int, random: Random, speed: float, spread: float) -> np.ndarray:
    """Scores [steps, images] of images that differ by 30 %, around `rising`."""
    own = 1 + 0.3 * noise(kind, random, (1, n))
    return rising(speed)[:, None] * own + spread * noise(kind, random, (STEPS, n))


def true_step(speed: float) -> int:
    mean = rising(speed)
    return int((mean >= 0.95 * mean[-1]).argmax())


def emergence(kind: str, n: int, simulations: int, random: Random) -> Counts:
    counts = Counts()
    for speed, spread in ((1.5, 0.1), (4.0, 0.1), (4.0, 0.3)):
        for _ in range(simulations // 3):
            scores = curves(kind, n, random, speed, spread)
            found = steps_reaching(scores - 0.95 * scores[-1])
            counts.one(Interval(found.first, found.low, found.high), true_step(speed))
    return counts


def lead(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """With and without a lead, at levels of their own and at a common one; claims are counted where there is none."""
    counts, ahead = Counts(), 0
    for other in (2.5, 4.0):
        for definition in (OWN, COMMON):
            for _ in range(simulations // 4):
                steps = np.arange(STEPS, dtype=float)
                probe, image = curves(kind, n, random, 2.5, 0.15), curves(kind, n, random, other, 0.15)
                low, high = _lead(steps, probe, image, definition, 0.95, METRICS["dice"])[-2:]
                beyond = np.inf if low is not None and high is None else high
                level = 0.95 * rising(2.5)[-1] if definition == COMMON else 0.95 * rising(other)[-1]
                truth = int((rising(other) >= level).argmax()) - true_step(2.5)
                counts.one(Interval(0.0, low, beyond), truth)
                ahead += other == 2.5 and low is not None and (low > 0 or beyond < 0)
                counts.runs += other == 2.5
    counts.claimed(ahead)
    return counts


def emergence_order(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """Two properties, the second three times as noisy, of the same and of another speed; claims are counted of the
    same."""
    counts, claimed = Counts(), 0
    for other in (2.5, 4.0):
        for seed in range(simulations // 2):
            scores = curves(kind, n, random, 2.5, 0.1), curves(kind, n, random, other, 0.3)
            above = np.stack([values - 0.95 * values[-1] for values in scores])
            (found,) = step_differences(above, [(0, 1)], seed=seed)
            if found is None:
                continue
            counts.one(Interval(found.difference, found.low, found.high), true_step(other) - true_step(2.5))
            counts.runs += other == 2.5
            claimed += other == 2.5 and n >= images_needed() and found.p <= SIGNIFICANT
    counts.claimed(claimed)
    return counts


def cka_of_layers(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """Two layers that have 0.3 of their variance in common, at tokens that are alike within an image."""
    first = random.normal(size=(8, 12)) * np.linspace(1.5, 0.2, 8)[:, None]
    second = first @ random.normal(size=(12, 9))
    covariances = (np.sqrt(0.3) * first.T @ second, first.T @ first, second.T @ second)
    across, own, other = ((matrix**2).sum() for matrix in covariances)
    counts = Counts()
    for _ in range(simulations):
        common, rest = (
            (noise(kind, random, (n, 1, 8)) + noise(kind, random, (n, 4, 8))) / np.sqrt(2) for _ in range(2)
        )
        found = hsic([common @ first, (np.sqrt(0.3) * common + np.sqrt(0.7) * rest) @ second])
        counts.one(Similarities(*map(normalised, vars(found).values())).mean([(0, 1)]), across / np.sqrt(own * other))
    return counts


def share_kept(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """The score of a probe at another step, 0.6 on average, in shares of the native one, 0.8."""
    image = noise(kind, random, (simulations, n))
    scores, native = (
        mean + 0.1 * (image + noise(kind, random, (simulations, n))) for mean in (0.6, 0.8)
    )  # of the same images
    _, low, high = shares(scores, native, METRICS["spearman"])
    counts = Counts()
    counts.add(low, high, 0.75)
    return counts


def half_of_images(kind: str, n: int, simulations: int, random: Random) -> Counts:
    counts = Counts()
    centre = 6.0 if kind == NORMAL else 4 * np.log(2)
    for _ in range(simulations):
        times = 6 + 2 * random.normal(size=n) if kind == NORMAL else 4 * random.exponential(size=n)
        found = median_step(np.clip(np.ceil(times), 0, STEPS).astype(int))
        counts.one(Interval(found.first, found.low, found.high), float(np.ceil(centre)))
    return counts


def within_classes(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """Classes of other difficulty and in another mix on either side, and no difference within a class."""
    counts = Counts(runs=simulations)
    for _ in range(simulations):
        sides = [(random.random(n) < common).astype(int) for common in (0.7, 0.4)]
        values = [0.4 * of + 0.1 * scale * noise(kind, random, (n,)) for of, scale in zip(sides, (1, 2), strict=True)]
        found = stratified_difference(values[0], sides[0], values[1], sides[1]).difference
        counts.one(found, 0.0)
        counts.claimed(bool((found.low or 0) > 0 or (found.high or 0) < 0))
    return counts


def world(kind: str, n: int, random: Random, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances [objects, objects], classes and images of 2 to 4 objects in each of n images."""
    images = np.repeat(np.arange(n), random.integers(2, 5, n))
    classes = random.integers(0, 4, len(images))
    centres = effect * np.random.default_rng(0).normal(size=(4, 16))
    of_image = 0.7 * random.normal(size=(n, 16)) * (1 if kind == NORMAL else random.exponential(size=(n, 1)))
    points = centres[classes] + of_image[images] + random.normal(size=(len(images), 16))
    return squareform(pdist(points, "correlation")), classes, images


def set_truth(kind: str, effect: float, simulations: int = 60) -> dict[str, float]:
    drawn = [
        _set_values(*world(kind, 100, np.random.default_rng(10_000 + seed), effect)) for seed in range(simulations)
    ]
    return {name: float(np.mean([each[name].value or 0.0 for each in drawn])) for name in drawn[0]}


def _set_values(distances: np.ndarray, classes: np.ndarray, images: np.ndarray) -> dict[str, Interval]:
    found = set_intervals(DistanceMatrix(distances, classes, images))
    named = {f"mean of {name}": interval for name, interval in found.means.items()}
    named |= {f"{b} - {a}": found.differences[a, b] for a, b in (("scdi", "dcdi"), ("scsi", "dcsi"))}
    return named | {f"AUC {a} < {b}": found.aucs[a, b] for a, b in (("scdi", "dcdi"), ("scsi", "dcsi"))}


def sets(simulations: int) -> Iterator[tuple[str, str, int, Counts]]:
    """Every mean, two differences and two AUCs, with and without classes; claims are counted without."""
    for kind in (NORMAL, SKEWED):
        truths = {effect: set_truth(kind, effect) for effect in (0.0, 0.4, 1.0)}
        for n in NUMBERS:
            table: dict[str, Counts] = {}
            for effect, truth in truths.items():
                for seed in range(simulations):
                    drawn = world(kind, n, np.random.default_rng(100 * seed + n), effect)
                    found = _set_values(*drawn)
                    for name, interval in found.items():
                        if interval.value is not None:
                            table.setdefault(name, Counts()).one(interval, truth[name])
                    if effect == 0:
                        counts, auc = table["AUC scdi < dcdi"], found["AUC scdi < dcdi"]
                        above = auc.low is not None and auc.low > 0.5
                        counts.claimed(
                            above
                            and (between_images(DistanceMatrix(*drawn), permutations=99, seed=seed).p or 1)
                            <= SIGNIFICANT
                        )
                        counts.runs += 1
            yield from ((name, kind, n, counts) for name, counts in table.items())


def order(kind: str, n: int, simulations: int, random: Random) -> Counts:
    """All sets far apart but two that are equal: how often their order is called shown."""
    counts = Counts(claims=0, runs=simulations)
    for _ in range(simulations):
        images = np.repeat(np.arange(n), 4)
        classes = random.integers(0, 3, len(images))
        same_class, same_image = classes[:, None] == classes, images[:, None] == images
        level = np.where(same_image, np.where(same_class, 0.0, 2.0), np.where(same_class, 2.0, 4.0))
        pull = noise(kind, random, (n,))[images]
        pairs = noise(kind, random, (len(images),) * 2)
        distances = 10 + level + (pull[:, None] + pull) / 2 + np.tril(pairs) + np.tril(pairs, -1).T
        p = set_intervals(DistanceMatrix(distances, classes, images)).order_p
        counts.claimed(p is not None and p <= SIGNIFICANT)
    return counts


def retrieval(simulations: int) -> Iterator[tuple[str, str, int, Counts]]:
    """Truth: the mean over all simulations of as many images, since a larger gallery has other scores."""
    for kind in (NORMAL, SKEWED):
        for n in NUMBERS:
            table: dict[str, Counts] = {}
            for effect in (0.3, 0.8):
                found: dict[str, list[Interval]] = {}
                for seed in range(simulations):
                    distances, classes, images = world(kind, n, np.random.default_rng(100 * seed + n), effect)
                    for name, interval in retrieve(DistanceMatrix(distances, classes, images)).items():
                        found.setdefault(name, []).append(interval)
                for name, intervals in found.items():
                    truth = float(np.mean([each.value for each in intervals if each.value is not None]))
                    for interval in intervals:
                        table.setdefault(name, Counts()).one(interval, truth)
            yield from ((name, kind, n, counts) for name, counts in table.items())


FAST: dict[str, Kind] = {
    "mean of scores": mean_score,
    "paired difference": paired,
    "any of five with Holm": family,
    "share of images": share_of_images,
    "difference of shares": difference_of_shares,
}
SLOW: dict[str, Kind] = {
    "mean over objects": mean_of_objects,
    "share of objects": share_of_objects,
    "mean over videos": videos,
    "share of sightings": share_of_sightings,
    "step of emergence": emergence,
    "lead": lead,
    "order of emergence": emergence_order,
    "CKA of two layers": cka_of_layers,
    "share of the native score": share_kept,
    "step of half the images": half_of_images,
    "difference within classes": within_classes,
    "order of the sets": order,
}


def rows(simulations: int, only: str = "") -> Iterator[tuple[str, str, int, Counts]]:
    """Kind, distribution, number of images, counts."""
    for kinds, times in ((FAST, 20), (SLOW, 4)):
        for name, simulate in kinds.items():
            for kind in (NORMAL, SKEWED) if only in name else ():
                for n in NUMBERS:
                    number = simulations * (1 if simulate is order else times)
                    yield name, kind, n, simulate(kind, n, number, np.random.default_rng(n))
    for name, several in (("sets", sets), ("retrieval", retrieval)):
        if only in name:
            yield from several(simulations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=200, help="20 times as many where they are fast")
    parser.add_argument("--only", default="", help="kinds whose name holds this")
    settings = parser.parse_args()
    print("coverage of 95 % intervals / claims where there is nothing, in %, by number of images")
    heads = [f"{kind}, n = {n}" for kind in (NORMAL, SKEWED) for n in NUMBERS]
    print(f"| kind | {' | '.join(heads)} |", "|" + " --- |" * (len(heads) + 1), sep="\n")
    table: dict[str, dict[tuple[str, int], str]] = {}
    for name, kind, n, counts in rows(settings.simulations, settings.only):
        table.setdefault(name, {})[kind, n] = counts.text
        if len(table[name]) == len(heads):
            cells = (table[name][kind, n] for kind in (NORMAL, SKEWED) for n in NUMBERS)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Statistics of the distances of all pairs of many objects: python benchmarks/separation.py [--objects N] [--runs N]

1. Everything that an analysis asks of one matrix of distances, in a process of its own: the four sets, their
   statistics, what tells them apart, intervals over images, permutation tests and retrieval. Prints the seconds of
   each, those of all processors, and the highest memory of the process so far, the interpreter, libraries and matrix
   (float32) included; then the totals against their goals for 50 million pairs, one minute and 2 GB. Medians of the
   runs. Seconds are of an idle machine only if it is idle; those of processors hardly depend on it.
2. The tests of the six pairs of sets on a million pairs against scipy's kruskal, mannwhitneyu and
   wasserstein_distance on the same values, in no order. Ours sorts them and also gives Dunn's indices and post-hoc
   test. Checked to be scipy's numbers. Prints the ratio of processor seconds.

Objects have a class and an image; both, and noise, are in their prototypes, so that sets overlap as real ones do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

CHANNELS, CLASSES, OBJECTS_PER_IMAGE = 16, 20, 3
SECONDS, GIGABYTES = 60, 2.0
MILLION = 1415  # objects with a million pairs
REPEATS = 3


def data(objects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances 1 - Pearson [n, n] in float32, classes and images [n]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, objects // OBJECTS_PER_IMAGE, objects)
    classes = rng.integers(0, CLASSES, objects)
    of_class, of_image = rng.normal(size=(CLASSES, CHANNELS)), rng.normal(size=(objects, CHANNELS))
    prototypes = of_class[classes] + of_image[images] + rng.normal(size=(objects, CHANNELS))
    prototypes -= prototypes.mean(1, keepdims=True)
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    unit = prototypes.astype(np.float32)
    distances = unit @ unit.T
    np.subtract(1, distances, out=distances)
    np.fill_diagonal(distances, 0)
    return distances, classes, images


def parts(objects: int, sender: Any) -> None:
    """Sends (part, seconds, processor seconds, highest memory so far in bytes) after each part, and None at the end."""
    from diffprobe.prototypes.pair_tests import pair_tests
    from diffprobe.prototypes.resampling import between_images, set_intervals, within_images
    from diffprobe.prototypes.retrieval import retrieve
    from diffprobe.prototypes.sets import DistanceMatrix, set_statistics, split_pairs

    def timed(part: str, call: Callable[[], Any]) -> Any:
        start, processor = time.perf_counter(), time.process_time()
        found = call()
        sender.send((part, time.perf_counter() - start, time.process_time() - processor, highest_memory()))
        return found

    made = [data(objects)]  # popped, so that nothing holds the matrix in the order of objects
    matrix = timed("checked, sorted by image", lambda: DistanceMatrix(*made.pop()))
    sets = timed("split into sets, sorted", lambda: split_pairs(matrix))
    timed("statistics of sets", lambda: [set_statistics(values) for values in sets.values()])
    timed("tests of pairs of sets", lambda: pair_tests(sets))
    timed("intervals over images", lambda: set_intervals(matrix))
    timed("permutation between images", lambda: between_images(matrix))
    timed("permutation within images", lambda: within_images(matrix))
    timed("retrieval", lambda: retrieve(matrix))
    sender.send(None)


def highest_memory() -> int:
    """Of this process, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def whole(objects: int, runs: int) -> None:
    found = [one_run(objects) for _ in range(runs)]
    print(f"{objects} objects, {objects * (objects - 1) / 2e6:.1f} million pairs; medians of {runs} runs")
    numbers = np.array([[row[1:] for row in rows] for rows in found])  # [runs, parts, seconds and bytes]
    for (part, *_), (seconds, processor, memory) in zip(found[0], np.median(numbers, 0), strict=True):
        print(f"  {part:28} {seconds:6.1f} s  {processor:6.1f} s of processors   {memory / 1e9:.2f} GB")
    seconds, processor = np.median(numbers[..., :2].sum(1), 0)
    memory = float(np.median(numbers[:, -1, 2])) / 1e9
    print(
        f"  {'all':28} {seconds:6.1f} s  {processor:6.1f} s of processors   {memory:.2f} GB\n"
        f"  goals of 50 million pairs: {SECONDS} s, {GIGABYTES:.0f} GB; here {seconds / SECONDS:.2f} and "
        f"{memory / GIGABYTES:.2f} times that"
    )


def one_run(objects: int) -> list[tuple[str, float, float, int]]:
    """What `parts` sends, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=parts, args=(objects, sender))
    process.start()
    sender.close()  # so that a process that dies ends the wait
    rows = []
    while (row := receiver.recv()) is not None:
        rows.append(row)
    process.join()
    return rows


def against_scipy() -> None:
    from scipy import stats

    from diffprobe.prototypes.pair_tests import pair_tests
    from diffprobe.prototypes.sets import DistanceMatrix, split_pairs

    rng = np.random.default_rng(1)
    sets = {name: rng.permutation(values) for name, values in split_pairs(DistanceMatrix(*data(MILLION))).items()}
    exact = {name: values.astype(np.float64) for name, values in sets.items()}  # scipy ranks float32 in float32

    def ours() -> dict[tuple[str, str, str], float | None]:
        rows = pair_tests({name: np.sort(values) for name, values in sets.items()})
        return {(row.statistic, row.set_a, row.set_b): row.value for row in rows}

    def theirs() -> dict[tuple[str, str, str], float]:
        found: dict[tuple[str, str, str], float] = {}
        for (a, first), (b, second) in combinations(exact.items(), 2):
            found["kruskal", a, b] = stats.kruskal(first, second).statistic
            found["auc", a, b] = stats.mannwhitneyu(second, first).statistic / (len(first) * len(second))
            found["wasserstein", a, b] = float(stats.wasserstein_distance(first, second))
        return found

    (found, fast), (expected, slow) = fastest(ours), fastest(theirs)
    worst = max(abs((found[key] or 0) - value) / max(abs(value), 1e-6) for key, value in expected.items())
    assert worst < 1e-6, worst
    pairs = sum(map(len, sets.values())) / 1e6
    print(
        f"tests of the six pairs of sets, {pairs:.1f} million pairs: scipy {slow:.2f} s, ours {fast:.2f} s: "
        f"{slow / fast:.1f} times faster, equal to {worst:.0e}"
    )


def fastest(call: Callable[[], dict]) -> tuple[dict, float]:
    """What the call gives, and the processor seconds of its fastest repeat."""
    seconds = []
    found: dict = {}
    for _ in range(REPEATS):
        start = time.process_time()
        found = call()
        seconds.append(time.process_time() - start)
    return found, min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    whole(options.objects, options.runs)
    against_scipy()


if __name__ == "__main__":
    main()

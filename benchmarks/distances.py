"""All pairs of prototypes, ours against dcor, a matrix product and torch's pdist: python benchmarks/distances.py

0. Distance correlation of 1000 prototypes of 320, 640, 1280 and 2560 channels from sorted values. Baseline: as
   products; wall-clock seconds on all cores, medians of five runs. `SORTED` begins where the ratio is at least 2.
1. Distance correlation of 4000 prototypes of 320 (as products), 1280 and 2560 channels (from sorted values), as the
   package chooses. Baseline: dcor's merge sort, pair by pair.
2. Euclidean, cosine and Pearson distance of 5000 prototypes of 1280 channels. Baseline: X @ X.T in float32.
3. Manhattan distance of the same. Baseline: torch's pdist, whose triangle is then put into a square, as ours is.
4. Errors of float32 against float64, on six kinds of data (normal, related, ReLU, heavy-tailed, offset, outliers) and
   on near-duplicates, with and without a large offset.

Speeds are ratios of CPU seconds of one thread, so that other work on the machine counts little (of more threads, the
ones that wait would count); of repeats the fastest. Takes some minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import dcor
import torch
from torch import Tensor

from diffprobe.prototypes import distances as correlation
from diffprobe.prototypes.distances import distance_matrix

OBJECTS, MANY = 4000, 5000
FEW_CHANNELS, CHANNELS, MANY_CHANNELS = 320, 1280, 2560
SAMPLE, PAIRS, REPEATS = 120, 60, 3


def six_kinds(objects: int, channels: int) -> Tensor:
    """[objects, channels], row by row of another kind."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(objects, channels, generator=random)
    x[1::6] += 2 * torch.randn(channels, generator=random).abs() * torch.randn(len(x[1::6]), 1, generator=random)
    x[2::6] = x[2::6].relu()
    x[3::6] = x[3::6] / torch.rand(x[3::6].shape, generator=random).clamp_(min=1e-4).sqrt()
    x[4::6] += 100
    x[5::6, ::channels] *= 100
    return x


def near_duplicates(offset: float) -> Tensor:
    """[SAMPLE, CHANNELS]: the second half is the first with a thousandth of noise."""
    x = torch.randn(SAMPLE, CHANNELS, generator=torch.Generator().manual_seed(1)) + offset
    x[SAMPLE // 2 :] = x[: SAMPLE // 2] + 1e-3 * torch.randn(SAMPLE // 2, CHANNELS)
    return x


def cpu_seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


def line(what: str, ours: str, baseline: str, ratio: float, bar: float, at_least: bool) -> None:
    held = ratio >= bar if at_least else ratio <= bar
    limit = f"{'at least' if at_least else 'at most'} {bar:g}"
    print(f"{what:58} {ours:>12} {baseline:>14} {ratio:10.3g}  {limit:15} {'held' if held else 'MISSED'}", flush=True)


def sorted_against_products(channels: int, repeats: int = 5) -> None:
    x = six_kinds(1000, channels)
    seconds: dict[str, list[float]] = {"sorted values": [], "products": []}
    kept = correlation.SORTED
    for run in range(repeats + 1):  # the first compiles
        for form, found in seconds.items():
            correlation.SORTED = range(0) if form == "products" else range(channels, channels + 1)
            start = time.perf_counter()
            distance_matrix(x, "distance_correlation")
            if run:
                found.append(time.perf_counter() - start)
    correlation.SORTED = kept
    ours, baseline = map(median, seconds.values())
    least = 2 if channels in kept else 1
    what = f"dCor, 1000 x {channels}, sorted against products: s"
    line(what, f"{ours:.2f}", f"{baseline:.2f}", baseline / ours, least, at_least=True)


def distance_correlation(channels: int, bar: float, form: str) -> None:
    """Speed per pair, and dCor^2 of a sample in float32 against float64 and against dcor."""
    correlation.SORTED = range(0) if form == "products" else range(channels, channels + 1)
    distance_matrix(six_kinds(32, channels), "distance_correlation")  # compiles
    x = six_kinds(OBJECTS, channels)
    pairs = [(i, (7 * i + 3) % SAMPLE) for i in range(PAIRS)]
    rows = x.double().numpy()

    def theirs() -> list[float]:
        return [dcor.distance_correlation(rows[i], rows[j], method="mergesort") for i, j in pairs]

    theirs()  # compiles
    baseline = cpu_seconds(theirs, 2 * REPEATS) / PAIRS
    found: list[Tensor] = []
    seconds = cpu_seconds(lambda: found.append(distance_matrix(x, "distance_correlation")), 1)
    ours = seconds / (OBJECTS * (OBJECTS - 1) / 2)
    what = f"dCor, {OBJECTS} x {channels}, {form}"
    line(f"{what}: us", f"{1e6 * ours:.2f}", f"{1e6 * baseline:.0f}", baseline / ours, bar, at_least=True)
    similarity = 1 - found[0][:SAMPLE, :SAMPLE].double()
    exact = 1 - distance_matrix(x[:SAMPLE], "distance_correlation", precision=torch.float64)
    error = float((similarity.square() - exact.square()).abs().max())
    line(f"{what}: error of dCor^2", "float32", "float64", error, 2e-6, at_least=False)
    gap = max(abs(float(exact[i, j]) - value) for (i, j), value in zip(pairs, theirs(), strict=True))
    line(f"{what}: float64", "ours", "dcor", gap, 1e-8, at_least=False)


def products(x: Tensor) -> None:
    baseline = cpu_seconds(lambda: x @ x.T)
    for measure in ("euclidean", "cosine", "pearson"):
        ours = cpu_seconds(lambda name=measure: distance_matrix(x, name))
        what = f"{measure}, {len(x)} x {x.shape[1]}: s"
        line(what, f"{ours:.2f}", f"{baseline:.2f}", ours / baseline, 1.5, at_least=False)


def manhattan(x: Tensor) -> None:
    def theirs() -> Tensor:
        square = x.new_zeros(len(x), len(x))
        i, j = torch.triu_indices(len(x), len(x), 1)
        square[i, j] = torch.nn.functional.pdist(x, p=1)
        return square + square.T

    baseline, ours = cpu_seconds(theirs), cpu_seconds(lambda: distance_matrix(x, "manhattan"))
    what = f"manhattan, {len(x)} x {x.shape[1]}: s"
    line(what, f"{ours:.2f}", f"{baseline:.2f}", baseline / ours, 1, at_least=True)


def relative_errors() -> None:
    data = {"six kinds": six_kinds(SAMPLE, CHANNELS)}
    data |= {f"near-duplicates, offset {offset:g}": near_duplicates(offset) for offset in (0, 100, 1000)}
    for kind, x in data.items():
        for measure in ("euclidean", "cosine", "pearson", "manhattan"):
            single, double = (distance_matrix(x, measure, precision=p).double() for p in (torch.float32, torch.float64))
            error = float(((single - double).abs() / double.clamp(min=1e-300)).max())
            line(f"{measure}, {kind}: relative error", "float32", "float64", error, 1e-5, at_least=False)


def main() -> None:
    print(f"{'what':58} {'ours':>12} {'baseline':>14} {'ratio':>10}  {'bar':15}")
    for channels in (320, 640, 1280, 2560):
        sorted_against_products(channels)
    torch.set_num_threads(1)
    relative_errors()
    x = torch.randn(MANY, CHANNELS, generator=torch.Generator().manual_seed(2)) + 3
    products(x)
    manhattan(x)
    distance_correlation(FEW_CHANNELS, 150, "products")
    distance_correlation(CHANNELS, 75, "sorted values")
    distance_correlation(MANY_CHANNELS, 75, "sorted values")


if __name__ == "__main__":
    main()

"""What a table of scores costs: python benchmarks/scores.py [default] [large] [old]

default  the scores of a default run (200 images, 80 of them scored; 16 layers, 15 steps, three properties, one control
         network): bytes on disk, time to read, and the highest memory a row from blocks to table, file and summaries.
large    8 million rows (617 scored images, 16 layers, 15 steps, the network and six controls) summarised, with time and
         the highest memory of the process.
old      reading the same default run from a scores.csv of the first edition.

Values are random float32 numbers, as probes give them: nothing of them can be compressed but their exponents.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from diffprobe.probes.comparisons import compare_run
from diffprobe.probes.score_table import ScoreBlock, read_scores, score_table, write_scores
from diffprobe.probes.summaries import summarise
from diffprobe.properties import PAPERS, as_properties

LAYERS, MOMENTS, REPEATS = 16, [(step, 999.0 - 66 * step) for step in range(15)], 5


def main(wanted: Sequence[str]) -> None:
    parts: dict[str, Callable[[], None]] = {"default": default, "large": large, "old": old}
    for name in wanted or parts:
        parts[name]()


def default() -> None:
    blocks = made_up({"validation": 40, "test": 40}, ["none", "permuted"])
    rows, own = sum(block.values.size for block in blocks), sum(block.values.nbytes for block in blocks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scores(folder, score_table(made_up({"test": 5}, ["none"])))
        summarise(read_scores(folder))  # what is imported and built once is no part of a row
        tracemalloc.start()
        scores, making = peak(lambda: score_table(blocks))
        path, writing = peak(lambda: write_scores(folder, scores))
        _, summarising = peak(lambda: summarise(scores))
        del scores
        scores, reading = peak(lambda: read_scores(folder))
        _, again = peak(lambda: summarise(scores))
        tracemalloc.stop()
        highest = max(own + making, own + writing, own + summarising, reading, again)
        print(f"default run: {rows} rows, {path.stat().st_size / 1e6:.2f} MB on disk (goal 3)")
        print(f"  highest memory: {highest / rows:.0f} bytes a row (goal 60), of which {own / rows:.0f} as computed")
        print(f"  {making / rows:.0f} to join, {writing / rows:.0f} to write, {reading / rows:.0f} to read, "
              f"{summarising / rows:.0f} to summarise")  # fmt: skip
        print(f"  read in {seconds(lambda: read_scores(folder)):.3f} s (goal 0.2)")


Found = TypeVar("Found")
POOLS: list[pa.MemoryPool] = []  # kept, since what was read lies in them


def peak(work: Callable[[], Found]) -> tuple[Found, int]:
    """What work gives, and the highest memory of numpy, pandas and Arrow meanwhile, with what is held."""
    outer = pa.default_memory_pool()
    held = outer.bytes_allocated()
    inner = pa.proxy_memory_pool(outer)
    POOLS.append(inner)
    pa.set_memory_pool(inner)
    tracemalloc.reset_peak()
    found = work()
    highest = tracemalloc.get_traced_memory()[1] + held + inner.max_memory()
    pa.set_memory_pool(outer)
    return found, highest


def large() -> None:
    images = {"validation": 308, "test": 309}
    scores = score_table(made_up(images, ["none", *(f"control {number}" for number in range(6))]))
    start = time.perf_counter()
    summaries = summarise(scores)
    taken = time.perf_counter() - start
    comparisons = compare_run(scores, summaries)
    compared = time.perf_counter() - start - taken
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(scores)} rows, {len(summaries)} means with intervals in {taken:.1f} s (goal 60)")
    print(f"  {len(comparisons)} paired comparisons in {compared:.1f} s")
    print(f"  memory of the process at the peak: {highest:.2f} GiB (goal 3)")


def old() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        scores = score_table(made_up({"validation": 40, "test": 40}, ["none", "permuted"]))
        scores.to_csv(path, index=False)
        taken = seconds(lambda: read_scores(Path(folder)))
        print(f"the default run in a scores.csv: {path.stat().st_size / 1e6:.1f} MB, read in {taken:.3f} s")


def made_up(images: dict[str, int], controls: Sequence[str]) -> list[ScoreBlock]:
    """Scores of every property and metric at 16 layers and 15 steps, for so many images of each split."""
    random = np.random.default_rng(0)
    named = {split: [f"scene_{split}_{number:05d}" for number in range(count)] for split, count in images.items()}
    return [
        ScoreBlock(
            model="pocket",
            layer=f"up_blocks.{layer}.attentions.0.transformer_blocks.0.attn1.to_out.0",
            property=name,
            probe="linear",
            control=control,
            split=split,
            metric=metric,
            moments=MOMENTS,
            images=there,
            values=random.random((len(MOMENTS), len(there)), np.float32).astype(float),
        )
        for control in controls
        for split, there in named.items()
        for layer in range(LAYERS)
        for name, item in as_properties(PAPERS).items()
        for metric in item.metrics
    ]


def seconds(work: Callable[[], object]) -> float:
    """The median of a few times."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


if __name__ == "__main__":
    main(sys.argv[1:])

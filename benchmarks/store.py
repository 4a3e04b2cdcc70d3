"""The store against plain files: python benchmarks/store.py [--gigabytes 1] [--folder .] [--workers 2] [--repeats 5]

Writing: the same bytes as activations into a store, and tensor after tensor with numpy's `tofile` into one file a
shard; every file ends with fsync. Reading: one layer at one step, shuffled through a DataLoader, against the same in
order, through the same kind of DataLoader and plainly by numpy; workers have started and read one epoch before. The
page cache is dropped before each cold read. Rivals alternate within one run, and medians are compared. Prints MB/s and
ratios. Shapes are those of SD 1.4's three largest self-attention grids.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.data import DataLoader

from diffprobe.activations.store.folder import Store, create_store
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.reader import LayerAtStep, StoredActivations
from diffprobe.activations.store.shards import TensorSpec
from diffprobe.activations.store.writer import StoreWriter
from diffprobe.backbone.layers import Layer

SHARD, STEPS = 8, [0, 4, 9]
LAYERS = [
    Layer(f"attn1_{side}", "self_attention", "decoder", channels, side, side)
    for channels, side in ((320, 64), (640, 32), (1280, 16))
]


def manifest(gigabytes: float) -> Manifest:
    row = 2 * len(STEPS) * sum(layer.channels * layer.tokens for layer in LAYERS)
    shards = max(2, round(gigabytes * 1e9 / row / SHARD))
    return Manifest(
        model={"name": "random"},
        trajectory={"kind": "random"},
        images=[{"id": f"image_{row:05d}"} for row in range(shards * SHARD)],
        layers=LAYERS,
        steps=STEPS,
        timesteps=[float(step) for step in STEPS],
        dtype="float16",
        images_per_shard=SHARD,
    )


def write_store(store: Store, values: dict[str, torch.Tensor]) -> None:
    with StoreWriter(store) as writer:
        for shard in store.shards:
            for name in store.specs:
                writer.put(name, shard.rows, values[name])


def write_plainly(folder: Path, shards: int, values: dict[str, torch.Tensor]) -> None:
    arrays = [tensor.numpy() for tensor in values.values()]
    folder.mkdir()
    for shard in range(shards):
        with (folder / str(shard)).open("wb") as file:
            for array in arrays:
                array.tofile(file)
            file.flush()
            os.fsync(file.fileno())


def drop_cache(paths: list[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def benchmark_writing(folder: Path, described: Manifest, repeats: int) -> Store:
    """Returns the last store written."""
    generator = torch.Generator().manual_seed(0)
    store = create_store(folder / "store", described)
    values = {name: torch.randn(SHARD, *spec.shape, generator=generator).half() for name, spec in store.specs.items()}
    size = len(store.shards) * sum(tensor.nbytes for tensor in values.values())
    stored, plain = [], []
    shards = len(store.shards)
    for repeat in range(repeats):
        for turn in (repeat, repeat + 1):  # who goes first changes
            os.sync()
            if turn % 2:
                plain.append(seconds(lambda: write_plainly(folder / "plain", shards, values)))
                shutil.rmtree(folder / "plain")
            else:
                shutil.rmtree(store.folder)
                store = create_store(folder / "store", described)
                os.sync()
                stored.append(seconds(partial(write_store, store, values)))
    print(f"writing {size / 1e9:.2f} GB in {shards} shards, to the disk (fsync), {repeats} times each")
    compare("the store", stored, "numpy tofile", plain, size)
    return store


def exhaust(loader: DataLoader) -> None:
    for _ in loader:
        pass


def read_plainly(store: Store, spec: TensorSpec) -> None:
    for shard in store.shards:
        with shard.path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little") + spec.position(0, len(shard.rows)))
            np.fromfile(file, dtype=np.float16, count=len(shard.rows) * spec.row_bytes // 2)


def benchmark_reading(store: Store, workers: int, repeats: int) -> None:
    activations = StoredActivations(store)
    for layer in LAYERS:
        data = LayerAtStep(activations, layer.name, STEPS[1])
        spec = store.specs[f"{layer.name}/step_{STEPS[1]}"]
        size = len(data) * spec.row_bytes
        paths = [shard.path for shard in store.shards]

        loaders = [
            DataLoader(data, 8, shuffle=shuffle, num_workers=workers, persistent_workers=True)
            for shuffle in (True, False)
        ]
        works = [*(partial(exhaust, loader) for loader in loaders), partial(read_plainly, store, spec)]
        for work in works:
            work()
        for cold in (True, False):
            times: dict[str, list[float]] = {"shuffled": [], "in order": [], "numpy in order": []}
            for _ in range(repeats):
                for name, work in zip(times, works, strict=True):
                    if cold:
                        drop_cache(paths)
                    times[name].append(seconds(work))
            place = "from the disk" if cold else "from the page cache"
            print(f"reading {layer.name} at one step, {len(data)} x {spec.row_bytes / 1e6:.2f} MB, {place}")
            compare(f"shuffled, {workers} workers", times["shuffled"], "in order, the same", times["in order"], size)
            compare("shuffled", times["shuffled"], "in order, numpy in one process", times["numpy in order"], size)


def compare(name: str, times: list[float], baseline: str, others: list[float], size: int) -> None:
    ratio = median(others) / median(times)
    fast, plain = (
        f"{size / median(values) / 1e6:.0f} MB/s ({size / max(values) / 1e6:.0f} to {size / min(values) / 1e6:.0f})"
        for values in (times, others)
    )
    print(f"  {name}: {fast}; {baseline}: {plain}; ratio {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to measure")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmark-store-") as folder:
        store = benchmark_writing(Path(folder), manifest(options.gigabytes), options.repeats)
        benchmark_reading(store, options.workers, options.repeats)


if __name__ == "__main__":
    main()

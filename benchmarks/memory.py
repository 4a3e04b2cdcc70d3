"""How many times a pass over images holds its activations: python benchmarks/memory.py [store] [one_pass]

store     every layer of pocket at 4 steps of 8 images, into a store: the most bytes of captured activations that are
          alive at a time, by those of one step of the batch.
one_pass  the same layers and images as ridge probes take them, all steps of a batch together: the most bytes of tensors
          that the pass holds beyond one of a single layer, by those of all steps of the batch.
"""

from __future__ import annotations

import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from diffprobe.activations.extraction import extract, stream_batches
from diffprobe.activations.sources import Generation
from diffprobe.backbone.capture import Capture
from diffprobe.backbone.layers import Layer, catalogue
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.data.prompts import load_prompts

IMAGES, STEPS = 8, 4


def main(wanted: list[str]) -> None:
    backbone = load_backbone("pocket", guidance=2.5, device="cpu")
    layers = catalogue(backbone.denoiser)
    size = sum(layer.channels * layer.height * layer.width for layer in layers) * IMAGES * 4
    if not wanted or "store" in wanted:
        with live_activations() as alive:
            store(backbone, layers)
        print(
            f"store: {len(layers)} layers, {size / 1e6:.0f} MB of activations a step of a batch: at most "
            f"{max(alive) / size:.2f} times that alive"
        )
    if not wanted or "one_pass" in wanted:
        beyond = allocated(lambda: one_pass(backbone, layers)) - allocated(lambda: one_pass(backbone, layers[:1]))
        print(
            f"one_pass: {STEPS * size / 1e6:.0f} MB of activations of all {STEPS} steps of a batch: at most "
            f"{beyond / size / STEPS:.2f} times that held"
        )


def source() -> Generation:
    return Generation(load_prompts(count=IMAGES), sampling_steps=STEPS)


def store(backbone: Backbone, layers: Sequence[Layer]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        extract(
            backbone,
            source(),
            layers,
            range(STEPS),
            dtype="float32",
            batch_size=IMAGES,
            stores=Path(folder),
            images_per_shard=IMAGES,
        )


def one_pass(backbone: Backbone, layers: Sequence[Layer]) -> None:
    names = [layer.name for layer in layers]
    rows = list(range(IMAGES))
    stream_batches(backbone, source(), names, range(STEPS), rows, lambda batch: None, batch_size=IMAGES)


@contextmanager
def live_activations() -> Iterator[list[int]]:
    """Inside: bytes of captured activations that are alive, after each one that is captured."""
    alive, found, compute_activations = [0], [0], Capture._on_output

    def gone(size: int) -> None:
        alive[0] -= size

    def counted(capture: Capture, name: str, *arguments: Any) -> Any:
        output = compute_activations(capture, name, *arguments)
        values = capture.activations[name]
        alive[0] += values.nbytes
        found.append(alive[0])
        weakref.finalize(values, gone, values.nbytes)
        return output

    Capture._on_output = counted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        Capture._on_output = compute_activations  # type: ignore[method-assign]


def allocated(work: Callable[[], None]) -> int:
    """The most bytes of tensors at a time, by the allocations that torch's profiler counts."""
    profiler: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with profiler:
        work()
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes))


if __name__ == "__main__":
    main(sys.argv[1:])

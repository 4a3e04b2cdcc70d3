"""What taking activations costs: python benchmarks/capture.py [pocket] [exit] [memory]

pocket   the trajectory with all 16 self-attention layers at all 15 steps, nothing stored, against the plain
         `StableDiffusionPipeline` call (images decoded in both).
exit     a forward that ends after down_blocks.2.resnets.0 against the whole forward, beside the share of the
         multiply-adds up to that layer; of pocket and of a full-size Stable Diffusion 1.4 U-Net with random weights.
memory   the full-size U-Net: catalogue and captured shapes against the published ones, and the peak of the tensors that
         are held during a forward with all 16 self-attention layers captured, against the bare forward.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from diffprobe.backbone.capture import capture
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import denoiser_without_weights

EXIT = "down_blocks.2.resnets.0"
PUBLISHED = (
    [(320, 64)] * 2
    + [(640, 32)] * 2
    + [(1280, 16)] * 2
    + [(1280, 8)]
    + ([(1280, 16)] * 3 + [(640, 32)] * 3 + [(320, 64)] * 3)
)


def main(wanted: list[str]) -> None:
    parts: dict[str, Callable[[], None]] = {"pocket": pocket, "exit": early_exit, "memory": memory}
    for name in wanted or ("pocket", "exit", "memory"):
        parts[name]()


def pocket() -> None:
    from diffprobe.backbone.load import load_backbone
    from diffprobe.backbone.trajectory import generate
    from diffprobe.data.prompts import load_prompts

    backbone = load_backbone("pocket", guidance=2.5, device="cpu")
    prompts = load_prompts(count=20)
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    layers = [layer.name for layer in select_layers(catalogue(backbone.denoiser), "self_attention")]

    def plain() -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        backbone.pipeline(texts, generator=generators, num_inference_steps=15, guidance_scale=2.5, output_type="pt")

    def captured() -> None:
        from diffprobe.backbone.capture import decode_latents

        for step in generate(backbone, texts, seeds, steps=15, layers=layers):
            last = step.latents
        with torch.no_grad():
            decode_latents(backbone, last)

    seconds = interleaved({"plain": plain, "captured": captured}, repeats=5)
    print(
        f"pocket: {len(layers)} layers at 15 steps captured: {seconds['captured'] / seconds['plain']:.3f} times the "
        f"plain pipeline call ({seconds['plain'] / len(texts):.3f} s an image)"
    )


@torch.no_grad()
def early_exit() -> None:
    for model, repeats in (("pocket", 15), ("sd14", 3)):
        twin = denoiser_without_weights(model)
        inputs = example(twin, "meta")
        share = operations(twin, inputs, stop=True) / operations(twin, inputs, stop=False)
        denoiser = random_weights(twin)
        inputs = example(denoiser, "cpu")
        seconds = interleaved({"whole": partial(denoiser, *inputs), "exit": partial(run, denoiser, inputs)}, repeats)
        ratio = seconds["exit"] / seconds["whole"]
        print(
            f"{model}: ending after {EXIT} takes {ratio:.3f} of a forward; its share of the multiply-adds is "
            f"{share:.3f}: {ratio / share:.2f} times that share"
        )


def run(denoiser: Any, inputs: tuple[Any, ...]) -> None:
    with capture(denoiser, [EXIT], guided=False, stop=True):
        denoiser(*inputs)


def operations(denoiser: Any, inputs: tuple[Any, ...], *, stop: bool) -> int:
    """Floating point operations of a forward on the meta device."""
    counter = FlopCounterMode(display=False)
    with counter, capture(denoiser, [EXIT], guided=False, stop=stop):
        denoiser(*inputs)
    return counter.get_total_flops()


@torch.no_grad()
def memory() -> None:
    denoiser = random_weights(denoiser_without_weights("sd14"))
    layers = select_layers(catalogue(denoiser), "self_attention")
    listed = [(layer.channels, layer.height) for layer in layers]
    print(f"sd14: the catalogue's 16 self-attention layers are the published ones: {listed == PUBLISHED}")
    bare, _ = peak(denoiser, [])
    captured, values = peak(denoiser, [layer.name for layer in layers])
    shapes, size = [tuple(value.shape) for value in values], sum(value.nbytes for value in values)
    print(f"sd14: captured shapes equal the catalogue's: {shapes == [(1, c, s, s) for c, s in listed]}")
    print(
        f"sd14: beside the weights, a bare forward holds at most {bare / 1e6:.1f} MB; capturing {size / 1e6:.1f} MB of "
        f"activations adds {(captured - bare) / 1e6:.1f} MB, {(captured - bare) / size:.2f} times their size"
    )


def peak(denoiser: Any, layers: list[str]) -> tuple[int, list[torch.Tensor]]:
    """The most bytes of tensors that a forward holds at a time, by the allocations that torch's profiler counts (the
    memory of the process differs by tens of megabytes from run to run), and what it captured."""
    inputs = example(denoiser, "cpu")
    profiler: Any = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with profiler, capture(denoiser, layers, guided=False) as taken:
        denoiser(*inputs)
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in changes)), list(taken.activations.values())


def random_weights(twin: Any) -> Any:
    """A network of the twin's configuration on the CPU, with small random weights."""
    denoiser = twin.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    return denoiser.eval().requires_grad_(False)


def example(denoiser: Any, device: str) -> tuple[Any, ...]:
    """One image's latents, timestep and text."""
    size = denoiser.config.sample_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, denoiser.config.in_channels, size, size, generator=generator)
    text = torch.randn(1, 77, denoiser.config.cross_attention_dim, generator=generator)
    return noise.to(device), torch.tensor(500, device=device), text.to(device)


def interleaved(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turns so that a busy moment meets all."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main(sys.argv[1:])

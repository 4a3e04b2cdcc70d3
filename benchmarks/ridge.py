"""What the whole study costs beside generating its images: python benchmarks/ridge.py [time] [memory] [gpu]

time     ridge probes of saliency, depth and shading at all 16 self-attention layers and 15 steps of pocket, trained,
         selected and scored while the images are generated, against the plain `StableDiffusionPipeline` call that
         generates the same images; with the evaluations of the U-Net.
memory   the highest memory of that pass for 40 and for 160 images, each in a process of its own.
gpu      (only if named) a full-size Stable Diffusion 1.4 U-Net with random weights in float16 on a GPU: 15 guided steps
         of 4 images, bare, and with all 16 self-attention layers added to the sums of the closed form.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from capture import example, interleaved, random_weights

IMAGES, BATCH, REPEATS = 100, 20, 3


def main(wanted: list[str]) -> None:
    parts: dict[str, Callable[[], None]] = {"time": seconds, "memory": memory, "gpu": gpu}
    for name in wanted or ("time", "memory"):
        parts[name]()


def seconds() -> None:
    backbone, prompts = ready(IMAGES)
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]

    def plain() -> None:
        for start in range(0, IMAGES, BATCH):
            rows = slice(start, start + BATCH)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[rows]]
            backbone.pipeline(
                texts[rows], generator=generators, num_inference_steps=15, guidance_scale=2.5, output_type="pt"
            )

    taken: dict[str, list[float]] = {"plain": [], "study": []}
    findings: Any = None
    for _ in range(REPEATS):
        start = time.perf_counter()
        plain()
        taken["plain"].append(time.perf_counter() - start)
        start = time.perf_counter()
        findings = study(backbone, prompts)
        taken["study"].append(time.perf_counter() - start)
    generating, studying = (statistics.median(values) for values in taken.values())
    probes = len(findings.summaries[["layer", "step", "property"]].drop_duplicates())
    print(
        f"pocket, {IMAGES} images: {probes} ridge probes trained, selected and scored in {studying:.1f} s, generating "
        f"the images alone {generating:.1f} s; ratio {studying / generating:.2f} "
        f"({', '.join(f'{b / a:.2f}' for a, b in zip(*taken.values(), strict=True))})"
    )
    print(f"evaluations of the U-Net: {findings.evaluations} = {IMAGES} images x 15 steps")


def memory() -> None:
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for images in (40, 160):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=peak, args=(images, sender))
        process.start()
        peaks[images] = receiver.recv()
        process.join()
    few, many = peaks
    print(
        f"highest memory of the pass: {peaks[few] / 1e6:.0f} MB for {few} images, {peaks[many] / 1e6:.0f} MB for "
        f"{many}: {(peaks[many] - peaks[few]) / (many - few) / 1e6:.2f} MB an image, tables of scores included"
    )


def peak(images: int, sender: Any) -> None:
    backbone, prompts = ready(images)
    study(backbone, prompts)
    with open("/proc/self/status") as file:
        sender.send(next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM")))


def ready(images: int) -> tuple[Any, list[Any]]:
    from diffprobe.backbone.load import load_backbone
    from diffprobe.data.prompts import load_prompts

    return load_backbone("pocket", guidance=2.5, device="cpu"), load_prompts(count=images)


def study(backbone: Any, prompts: list[Any]) -> Any:
    from diffprobe.activations.sources import Generation
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.labels.pocket import PocketLabeler
    from diffprobe.probes.bank import ProbeConfig
    from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing

    layers = select_layers(catalogue(backbone.denoiser), "self_attention")
    probing_config = ProbingConfig(layers, range(15), controls=(), probe_config=ProbeConfig("ridge", solver="ridge"))
    source = Generation(prompts, sampling_steps=15)
    return run_probing(
        backbone, source, PocketLabeler(), probing_config, ExecutionConfig(batch_size=BATCH, one_pass=True)
    )


@torch.no_grad()
def gpu() -> None:
    if not torch.cuda.is_available():
        print("gpu: there is none here")
        return
    from diffprobe.backbone.capture import capture
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.backbone.load import denoiser_without_weights
    from diffprobe.probes.bank import ProbeConfig
    from diffprobe.probes.properties import PROPERTIES
    from diffprobe.probes.ridge import Moments

    batch, steps = 4, 15
    denoiser = random_weights(denoiser_without_weights("sd14")).half().cuda().to(memory_format=torch.channels_last)
    layers = [layer.name for layer in select_layers(catalogue(denoiser), "self_attention")]
    noise, timestep, text = (item.half() if item.is_floating_point() else item for item in example(denoiser, "cuda"))
    inputs = (noise.expand(2 * batch, -1, -1, -1), timestep, text.expand(2 * batch, -1, -1))
    targets = {name: torch.rand(batch, 512, 512, device="cuda") for name in PROPERTIES}
    moments = Moments(list(PROPERTIES), ProbeConfig("ridge", solver="ridge"))

    def bare() -> None:
        for _ in range(steps):
            denoiser(*inputs)
        torch.cuda.synchronize()

    def summed() -> None:
        seen: list[dict[str, torch.Tensor]] = []
        for _ in range(steps):
            with capture(denoiser, layers) as taken:
                denoiser(*inputs)
            seen.append(taken.activations)
        moments.add({layer: torch.stack([step[layer] for step in seen]) for layer in layers}, targets)
        torch.cuda.synchronize()

    found = interleaved({"bare": bare, "summed": summed}, repeats=5)
    print(f"gpu, {batch} images: with the sums {found['summed'] / found['bare']:.2f} times the bare 15 guided steps")


if __name__ == "__main__":
    main(sys.argv[1:])

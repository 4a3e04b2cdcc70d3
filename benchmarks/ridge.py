"""What the whole study costs beside generating its images: python benchmarks/ridge.py [time] [memory]

time     ridge probes of saliency, depth and shading at all 16 self-attention layers and 15 steps of pocket, trained,
         selected and scored while the images are generated, against the plain `StableDiffusionPipeline` call that
         generates the same images; with the evaluations of the U-Net.
memory   the highest memory of that pass for 40 and for 160 images, each in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

IMAGES, BATCH, REPEATS = 100, 20, 3


def main(wanted: list[str]) -> None:
    parts: dict[str, Callable[[], None]] = {"time": seconds, "memory": memory}
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


if __name__ == "__main__":
    main(sys.argv[1:])

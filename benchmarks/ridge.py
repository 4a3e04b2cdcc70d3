"""What the whole study costs beside generating its images: python benchmarks/ridge.py [time] [memory] [--runs N]

time     ridge probes of saliency, depth and shading at all 16 self-attention layers and 15 steps of pocket, trained,
         selected and scored while the images are generated, without controls and with all of them (control=all: two
         other networks, three inputs, shuffled labels, position), against the plain `StableDiffusionPipeline` call that
         generates the same images; with the evaluations of the U-Net.
memory   the highest memory of that pass for 40 and for 160 images, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

IMAGES, BATCH = 100, 20
GOALS = {"no control": 1.15, "control=all": 2.2}  # times the plain pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="time, memory (both)")
    parser.add_argument("--runs", type=int, default=5, help="of each, in turns (5)")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {"time": partial(seconds, options.runs), "memory": memory}
    for name in options.parts or parts:
        parts[name]()


def seconds(runs: int) -> None:
    from diffprobe.probes.controls import CONTROL_NAMES

    backbone, prompts = ready(IMAGES)
    ways: dict[str, Callable[[], Any]] = {
        "plain": partial(plain, backbone, prompts),
        "no control": partial(study, backbone, prompts),
        "control=all": partial(study, backbone, prompts, CONTROL_NAMES),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Any] = {}
    for _ in range(runs):
        for name, way in ways.items():
            start = time.perf_counter()
            found[name] = way()
            taken[name].append(time.perf_counter() - start)
    generating = statistics.median(taken["plain"])
    for name, goal in GOALS.items():
        probes = len(found[name].summaries[["layer", "step", "property", "control"]].drop_duplicates())
        studying = statistics.median(taken[name])
        ratios = ", ".join(f"{own / alone:.2f}" for own, alone in zip(taken[name], taken["plain"], strict=True))
        evaluations = found[name].evaluations
        print(
            f"{name}: goal {goal}, measured ratio {studying / generating:.2f} ({ratios}): {probes} ridge probes on "
            f"{IMAGES} images in {studying:.1f} s, the images alone {generating:.1f} s; {evaluations} evaluations of "
            f"U-Nets, {evaluations / IMAGES:g} an image"
        )


def plain(backbone: Any, prompts: list[Any]) -> None:
    for start in range(0, len(prompts), BATCH):
        own = prompts[start : start + BATCH]
        backbone.pipeline(
            [prompt.text for prompt in own],
            generator=[torch.Generator().manual_seed(prompt.seed) for prompt in own],
            num_inference_steps=15,
            guidance_scale=2.5,
            output_type="pt",
        )


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


def study(backbone: Any, prompts: list[Any], controls: Sequence[str] = ()) -> Any:
    from diffprobe.activations.sources import Generation
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.labels.pocket import PocketLabeler
    from diffprobe.probes.bank import ProbeConfig
    from diffprobe.probes.study.two_pass import ExecutionConfig, ProbingConfig, run_probing

    layers = select_layers(catalogue(backbone.denoiser), "self_attention")
    probing_config = ProbingConfig(
        layers, range(15), controls=controls, probe_config=ProbeConfig("ridge", solver="ridge")
    )
    source = Generation(prompts, sampling_steps=15)
    return run_probing(
        backbone, source, PocketLabeler(), probing_config, ExecutionConfig(batch_size=BATCH, one_pass=True)
    )


if __name__ == "__main__":
    main()

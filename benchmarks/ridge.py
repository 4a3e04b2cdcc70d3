"""What the whole study costs beside generating its images: python benchmarks/ridge.py [time] [memory] [--runs N]

time     ridge probes of saliency, depth and shading at all 16 self-attention layers and 15 steps of pocket, trained,
         selected and scored while the images are generated, without controls and with all of them (control=all: two
         other networks, three inputs, shuffled labels, position), against the plain `StableDiffusionPipeline` call that
         generates the same images; with the evaluations of the U-Net. Each in a process of its own: the plain call in
         one as it comes, and in one that keeps freed memory, as the commands of this package and the studies here do.
memory   the highest memory of that pass for 40 and for 160 images, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

IMAGES, BATCH = 100, 20
PLAIN = "plain"
GOALS = {"no control": 1.15, "control=all": 2.2}  # times the plain pipeline


class Timed(NamedTuple):
    seconds: float
    probes: int = 0
    evaluations: int = 0


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

    # What is timed, and whether the process keeps freed memory, as the commands of this package do
    ways: dict[str, tuple[Sequence[str] | None, bool]] = {
        PLAIN: (None, False),
        "plain, freed memory kept": (None, True),
        "no control": ((), True),
        "control=all": (CONTROL_NAMES, True),
    }
    taken: dict[str, list[Timed]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, (controls, keeps) in ways.items():
            taken[name].append(in_a_process(timed, controls, keeps))
    middle = {name: statistics.median(each.seconds for each in several) for name, several in taken.items()}
    for name, goal in GOALS.items():
        own = taken[name][0]
        ratios = ", ".join(
            f"{one.seconds / alone.seconds:.2f}" for one, alone in zip(taken[name], taken[PLAIN], strict=True)
        )
        print(
            f"{name}: goal {goal}, measured ratio {middle[name] / middle[PLAIN]:.2f} ({ratios}): {own.probes} ridge "
            f"probes on {IMAGES} images in {middle[name]:.1f} s, the images alone {middle[PLAIN]:.1f} s; "
            f"{own.evaluations} evaluations of U-Nets, {own.evaluations / IMAGES:g} an image"
        )
        for other, several in middle.items():
            if "kept" in other:
                print(f"    against {other} ({several:.1f} s): {middle[name] / several:.2f}")


def in_a_process(function: Callable[..., None], *arguments: Any) -> Any:
    """What a function sends, run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(*arguments, sender))
    process.start()
    found = receiver.recv()
    process.join()
    return found


def timed(controls: Sequence[str] | None, keeps_memory: bool, sender: Any) -> None:
    """Sends the time of the plain pipeline (no `controls`) or of a study."""
    from diffprobe.heap import keep_freed_memory

    if keeps_memory:
        keep_freed_memory()
    backbone, prompts = ready(IMAGES)
    plain(backbone, prompts[:BATCH])
    start = time.perf_counter()
    if controls is None:
        plain(backbone, prompts)
        sender.send(Timed(time.perf_counter() - start))
        return
    found = study(backbone, prompts, controls)
    taken = time.perf_counter() - start
    probes = found.summaries[["layer", "step", "property", "control"]].drop_duplicates()
    sender.send(Timed(taken, len(probes), found.evaluations))


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
    peaks = {images: in_a_process(peak, images) for images in (40, 160)}
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

"""Closed-form edits against the papers' gradient descent: python benchmarks/intervention.py

Saliency maps of pocket's images are translated; the same probes, layers, steps, images and targets for every method.
Prints the mean Dice of the new images' labels with their targets, the seconds spent in edits alone and in all, and
ratios to gradient descent, measured in this run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from diffprobe.activations.sources import Generation
from diffprobe.analyses.intervention.edits import Editing, TokenMoments, final_images, replacements
from diffprobe.analyses.intervention.target_maps import draw_moves, move
from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import scene_prompts
from diffprobe.labels.pocket import PocketLabeler
from diffprobe.probes.bank import ProbeConfig
from diffprobe.probes.study.two_pass import ProbingConfig, run_probing
from diffprobe.properties.binary import dice

TRAINING, IMAGES = 40, 12
LAYERS = ["down_blocks.0.resnets.?", "up_blocks.3.resnets.?"]
STEPS = range(5)
METHODS = ("gradient", "minimum_norm", "pattern")


class Clock:
    """Adds up the seconds that functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def run(values: Tensor) -> Tensor:
            start = time.perf_counter()
            found = function(values)
            self.seconds += time.perf_counter() - start
            return found

        return run


def main() -> None:
    backbone = load_backbone("pocket", guidance=2.5)
    layers = select_layers(catalogue(backbone.denoiser), LAYERS)
    labeler = PocketLabeler()
    probing_config = ProbingConfig(
        layers, STEPS, properties=["saliency"], controls=[], probe_config=ProbeConfig(name="ridge", solver="ridge")
    )
    bank = run_probing(backbone, Generation(scene_prompts(TRAINING, seed=1)), labeler, probing_config).bank
    prompts = scene_prompts(IMAGES, seed=2)
    names, texts = [prompt.name for prompt in prompts], [prompt.text for prompt in prompts]
    seeds = [prompt.seed for prompt in prompts]

    moments, steps = TokenMoments(), []
    for step in generate(backbone, texts, seeds, layers=[layer.name for layer in layers]):
        steps.append(step)
        if step.index in STEPS:
            moments.add(step.index, step.activations)
    labels = labeler(final_images(backbone, steps), names, ["saliency"])["saliency"]
    moves = draw_moves(list(labels), "translation", 11, 15, 0, names)
    targets = torch.stack([move(mask, how, mask=True) for mask, how in zip(labels, moves, strict=True)])
    print(f"{IMAGES} images, {len(layers)} layers, {len(STEPS)} steps; Dice without intervention "
          f"{dice(labels, targets).mean():.3f}")  # fmt: skip

    first: tuple[float, float] | None = None
    for method in METHODS:
        editing = Editing("saliency", [layer.name for layer in layers], STEPS, method=method)
        if method == "minimum_norm":
            editing = replace(editing, margin=4.0)  # Euclid's smallest changes are smaller for the image
        edits = replacements(backbone, seeds, targets, bank, editing, covariances=moments.covariances())
        clock = Clock()
        timed = {
            at: {layer: clock.timed(function) for layer, function in by_layer.items()} for at, by_layer in edits.items()
        }
        start = time.perf_counter()
        images = final_images(backbone, generate(backbone, texts, seeds, replace=timed))
        whole = time.perf_counter() - start
        score = float(dice(labeler(images, names, ["saliency"])["saliency"], targets).mean())
        first = first or (score, clock.seconds)
        print(
            f"{method:13s} Dice {score:.3f} ({score - first[0]:+.3f})  edits {clock.seconds:7.2f} s "
            f"({first[1] / clock.seconds:.0f} times faster)  whole {whole:.1f} s"
        )


if __name__ == "__main__":
    main()

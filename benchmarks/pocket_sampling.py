"""Seconds an image of the pocket pipeline, and what capturing costs: python benchmarks/pocket_sampling.py

Baseline: the plain `StableDiffusionPipeline` call in batches of 20, 15 LMS steps, guidance 3. Against it, in the same
run: the trajectory that captures all 16 self-attention layers at every step.
"""

from __future__ import annotations

import time

import torch

from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import load_prompts

IMAGES = 20
REPEATS = 3


def main() -> None:
    backbone = load_backbone("pocket", guidance=3.0, device="cpu")
    prompts = load_prompts(count=IMAGES)
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    layers = [layer.name for layer in select_layers(catalogue(backbone.denoiser), "self_attention")]

    def plain() -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        backbone.pipeline(texts, generator=generators, num_inference_steps=15, guidance_scale=3.0, output_type="pt")

    def captured() -> None:
        for _ in generate(backbone, texts, seeds, steps=15, layers=layers):
            pass

    seconds = {}
    for _ in range(REPEATS):  # interleaved, so that a busy moment meets both
        for name, function in (("plain", plain), ("captured", captured)):
            start = time.perf_counter()
            function()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    best = {name: min(values) for name, values in seconds.items()}
    print(f"{torch.get_num_threads()} threads, batch of {IMAGES}, best of {REPEATS}")
    print(f"plain pipeline {best['plain'] / IMAGES:.2f} s an image")
    print(
        f"capturing {len(layers)} layers at 15 steps: {best['captured'] / best['plain']:.2f} times the plain pipeline"
    )


if __name__ == "__main__":
    main()

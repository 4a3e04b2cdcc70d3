"""A made-up run: 16 layers, 15 steps, three properties, both controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference
from diffprobe.probes.summaries import EmergenceStep, Summary
from diffprobe.properties import property_named
from diffprobe.report.choices import LayerChoice
from diffprobe.report.grid import PredictionExample

BLOCKS = (
    [f"down_blocks.{block}.attentions.{item}" for block in range(3) for item in range(2)]
    + ["mid_block.attentions.0"]
    + [f"up_blocks.{block}.attentions.{item}" for block in (1, 2, 3) for item in range(3)]
)
LAYERS = [f"{block}.transformer_blocks.0.attn1.to_out.0" for block in BLOCKS]
BEST = LAYERS[11]  # up_blocks.2.attentions.1
FINAL = {"saliency": ("dice", 0.88), "depth": ("spearman", 0.80), "shading": ("spearman", 0.62)}
STEPS = 15


def _score(final: float, layer: str, step: int) -> float:
    distance = abs(LAYERS.index(layer) - LAYERS.index(BEST))
    return final * (1 - 0.035 * distance) * (1 - 0.6 * np.exp(-step / 1.5))


def make_summaries(layers: Sequence[str] = LAYERS, steps: range = range(STEPS)) -> list[Summary]:
    """Best at up 2.1 for every property; the controls lie far below it, with narrow intervals."""
    return list(_summaries(tuple(layers), tuple(steps)))


@cache
def _summaries(layers: tuple[str, ...], steps: tuple[int, ...]) -> list[Summary]:
    rows = []
    for property, (metric, final) in FINAL.items():
        blank = Summary("pocket", "", NO_STEP, None, property, "linear", "none", "test", metric, 0, 0, 0, 100)
        for split in ("validation", "test"):
            for layer in layers:
                for step in steps:
                    mean = _score(final, layer, step)
                    row = replace(blank, layer=layer, step=step, timestep=999.0 - 66 * step, split=split)
                    rows.append(replace(row, mean=mean, low=mean - 0.03, high=mean + 0.03))
                    weak = 0.45 * final * (0.6 + 0.4 * step / STEPS)
                    row = replace(row, control="permuted")
                    rows.append(replace(row, mean=weak, low=weak - 0.04, high=weak + 0.04))
            place = replace(blank, layer="position", control="position", split=split)
            rows.append(replace(place, mean=0.3, low=0.26, high=0.34))
    return rows


def make_choices() -> list[LayerChoice]:
    emergence = EmergenceStep(step=4, low=3, high=6)
    return [
        LayerChoice("pocket", "linear", property, metric, BEST, emergence) for property, (metric, _) in FINAL.items()
    ]


def make_comparison(control: str, difference: float, half: float = 0.02, p: float = 0.001, property: str = "depth"):
    """The best layer at the last step against a control, on the same images."""
    layer, step = ("position", NO_STEP) if control == "position" else (BEST, STEPS - 1)
    real, other = ("pocket", BEST, STEPS - 1, "linear", "none"), ("pocket", layer, step, "linear", control)
    what = ("control", property, FINAL[property][0], "test")
    return ScoreDifference(*what, *real, *other, difference, difference - half, difference + half, p, p, 100, 0)


def make_example(steps: int = STEPS, size: int = 32) -> PredictionExample:
    """A bright disc on a ground plane that comes out of noise; predictions at half its resolution."""
    noise = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    disc = ((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.06).astype(np.float32)
    depth = (y + disc * 0.5).astype(np.float32)
    shading = (0.3 + 0.7 * x * (1 - 0.5 * disc)).astype(np.float32)
    final = np.stack([0.2 + 0.7 * disc, shading, 1 - depth / 2], axis=-1).clip(0, 1)
    labels = {"saliency": disc, "depth": depth, "shading": shading}

    def coming_out(target: np.ndarray, strength: float) -> np.ndarray:
        share = 1 - np.exp(-np.arange(steps) / strength).reshape(-1, *[1] * target.ndim)
        return share * target + (1 - share) * noise.normal(0.5, 0.35, (steps, *target.shape))

    predictions = {name: coming_out(values[::2, ::2], 1.5) for name, values in labels.items()}
    return PredictionExample(
        title="a red sphere to the left of a blue cube",
        steps=tuple(range(steps)),
        images=coming_out(final, 5).clip(0, 1),
        items={name: property_named(name) for name in labels},
        predictions=predictions,
        labels=labels,
        final=final,
    )

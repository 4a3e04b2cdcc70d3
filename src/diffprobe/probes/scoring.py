"""Scores of a trained bank: every metric of every probe on every validation and test image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.errors import UserError
from diffprobe.probes import functional
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.functional import Grid, PooledTarget, pool_target, rank_maps
from diffprobe.probes.properties import Property
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.splits import Split
from diffprobe.probes.targets import target_maps

Threshold = float | Literal["validation"]

METRICS = {
    "dice": functional.dice,
    "dice_background": functional.background_dice,
    "spearman": functional.spearman,
    "pearson": functional.pearson,
    "rmse": functional.rmse,
}
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
SCORED_PARTS = ("validation", "test")


def predict_maps(
    bank: ProbeBank, activations: ReadableActivations, name: str, layer: str, rows: Sequence[int]
) -> Tensor:
    """What the probes of property `name` on `layer` say of some images: [steps, images, h, w].

    Saliency: the probability of foreground. Depth and shading: label units.
    """
    return bank.properties[name].decode_map(_outputs(bank, activations, layer, rows)[name], bank.standardisations[name])


def choose_thresholds(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    threshold: Threshold = "validation",
) -> dict[str, dict[str, list[float]]]:
    """Thresholds of the foreground probability of every binary property, to be put into `bank.thresholds`.

    'validation': per probe the value of 0.05, 0.10 ... 0.95 with the best mean Dice over the validation images. A
    number in (0, 1) is used as it is; 0.5 is the paper's argmax of two logits. Returns {property: {layer: one per
    step}}. Raises UserError for any other threshold.
    """
    binary = [name for name, item in bank.properties.items() if item.binary]
    if threshold != "validation":
        fixed = check_threshold(threshold)
        return {name: {layer: [fixed] * len(bank.steps) for layer in bank.layers} for name in binary}
    chosen: dict[str, dict[str, list[float]]] = {name: {} for name in binary}
    for name in binary:
        target = target_maps(targets, name, activations.names)[split.validation]
        pooled = {grid: pool_target(target, grid) for grid in activations.grids}
        for layer in bank.layers:
            maps = predict_maps(bank, activations, name, layer, split.validation)
            chosen[name][layer] = best_thresholds(maps, pooled[_grid(maps)])
    return chosen


def check_threshold(threshold: object) -> float:
    """The threshold, if it is a number in (0, 1). Raises UserError otherwise."""
    if isinstance(threshold, bool) or not isinstance(threshold, float | int) or not 0 < threshold < 1:
        raise UserError(f"threshold {threshold!r}: give a number between 0 and 1, or 'validation'.")
    return float(threshold)


def candidate_thresholds(threshold: Threshold) -> list[float]:
    """What is chosen from on validation images: `THRESHOLDS`, or the given one alone. Raises as `check_threshold`."""
    return list(THRESHOLDS) if threshold == "validation" else [check_threshold(threshold)]


def best_thresholds(maps: Tensor, target: PooledTarget) -> list[float]:
    """Of `THRESHOLDS` the one with the best mean Dice over images, for maps [steps, images, h, w]; one per step."""
    scores = torch.stack([functional.dice(maps > value, target).mean(-1) for value in THRESHOLDS])
    return [THRESHOLDS[index] for index in scores.argmax(0).tolist()]


def pooled_targets(item: Property, target: Tensor, grids: Iterable[Grid]) -> dict[Grid, dict[str, PooledTarget]]:
    """What every metric of a property compares with, for each grid: computed once and shared by all probes."""
    ranks = rank_maps(target) if "spearman" in item.metrics else target
    found = {}
    for grid in grids:
        values = pool_target(target, grid)
        pooled_ranks = pool_target(ranks, grid) if "spearman" in item.metrics else values
        found[grid] = {metric: pooled_ranks if metric == "spearman" else values for metric in item.metrics}
    return found


def score_maps(
    item: Property, maps: Tensor, targets: Mapping[str, PooledTarget], thresholds: Sequence[float]
) -> dict[str, Tensor]:
    """Metrics of decoded maps [steps, images, h, w]: {metric: [steps, images]}; `thresholds` cut binary maps."""
    prediction = maps > torch.tensor(thresholds, device=maps.device)[:, None, None, None] if item.binary else maps
    return {metric: METRICS[metric](prediction, targets[metric]) for metric in item.metrics}


def score_bank(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    *,
    model: str,
    control: str = "none",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """Every metric of every probe on every validation and test image, cut at `bank.thresholds`.

    targets: label maps [images, H, W] by property. rmse is in units of the standard deviation of the training labels.
    """
    found: list[ScoreBlock] = []
    moments = list(zip(bank.steps, activations.timesteps, strict=True))
    for part in SCORED_PARTS:
        rows = getattr(split, part)
        names = [activations.names[row] for row in rows]
        pooled = {}
        for name, item in bank.properties.items():
            maps = bank.standardisations[name].apply(target_maps(targets, name, activations.names)[rows])
            pooled[name] = pooled_targets(item, maps, activations.grids)
        for layer in bank.layers:
            for name, outputs in _outputs(bank, activations, layer, rows).items():
                item = bank.properties[name]
                maps = item.decode(outputs)
                thresholds = bank.thresholds[name][layer] if item.binary else []
                for metric, values in score_maps(item, maps, pooled[name][_grid(maps)], thresholds).items():
                    keys = (model, layer, name, probe, control, part, metric)
                    found.append(ScoreBlock(*keys, moments, names, values.double().cpu().numpy()))
    return found


@torch.no_grad()
def _outputs(bank: ProbeBank, activations: ReadableActivations, layer: str, rows: Sequence[int]) -> dict[str, Tensor]:
    return bank(layer, activations.values[layer][:, list(rows)])


def _grid(maps: Tensor) -> Grid:
    return maps.shape[-2], maps.shape[-1]

"""Label maps to targets, and scores of whole banks, per image.

A prediction at token resolution stands for its nearest-neighbour upsampling to the target's size. If that is a multiple
of the grid, the score at image resolution follows exactly from the target's mean over each token's pixels, or token by
token, so a target is prepared once and reused by every probe. Otherwise the prediction is upsampled first. All scores
are [..., images] in float64 (float32 where the device has no float64).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.splits import PARTS, Split
from diffprobe.properties import Property, as_properties
from diffprobe.properties.binary import areas_at_thresholds
from diffprobe.properties.tokens import Grid, grid_of, pool_target

Threshold = float | Literal["validation"]
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def target_maps(targets: Mapping[str, Tensor], item: Property, names: Sequence[str]) -> Tensor:
    """Targets [images, H, W] (of vectors [images, channels, H, W]) from the label maps of the images called `names`.

    Raises UserError for no or a wrong number of label maps, ones that are not finite, and values that are no labels.
    """
    name = item.name
    if name not in targets:
        raise UserError(f"no label maps for property {name!r}: there are {', '.join(targets) or 'none'}.")
    labels = targets[name]
    dimensions = 4 if item.kind == "vector" else 3
    if labels.ndim != dimensions or len(labels) != len(names):
        shape = f"[{len(names)}, {'channels, ' * (dimensions - 3)}height, width]"
        raise UserError(f"{name}: label maps of shape {tuple(labels.shape)}, expected {shape}.")
    finite = labels.isfinite().flatten(1).all(1).tolist()
    broken = [image for image, good in zip(names, finite, strict=True) if not good]
    if broken:
        raise UserError(f"{name}: {len(broken)} label maps are not finite, the first is that of image {broken[0]!r}.")
    return item.target(labels)


def prepare_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str | Property],
    probe_config: ProbeConfig,
    seed: int,
) -> tuple[ProbeBank, dict[str, dict[Grid, Tensor]]]:
    """The probes at their start, and by property and grid the standardised planes [images, planes, h, w].

    targets: label maps by property, in the row order of `activations.names`. Raises UserError for unknown properties
    and for label maps that do not fit the activations or do not vary.
    """
    items = as_properties(properties)
    maps = {name: target_maps(targets, item, activations.names) for name, item in items.items()}
    statistics = {name: item.standardisation(maps[name][split.train]) for name, item in items.items()}
    bank = ProbeBank(
        {layer.name: layer.channels for layer in activations.layers},
        activations.steps,
        list(items.values()),
        head=probe_config.head,
        bias=probe_config.bias,
        seed=seed,
        standardisations=statistics,
    )
    return bank, {
        name: {grid: item.standardise(item.planes(maps[name], grid), statistics[name]) for grid in activations.grids}
        for name, item in items.items()
    }


def predict_maps(
    bank: ProbeBank, activations: ReadableActivations, name: str, layer: str, rows: Sequence[int]
) -> Tensor:
    """Predictions of the probes of property `name` on `layer` for some images: [steps, images, h, w], of vectors
    [steps, images, channels, h, w].

    Probabilities of foreground, label units, class numbers, or vectors.
    """
    item, standardisation = bank.properties[name], bank.standardisations[name]
    outputs = _outputs(bank, activations, layer, rows)[name]
    return item.in_label_units(item.decode(outputs, standardisation), standardisation)


def choose_thresholds(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    threshold: Threshold = "validation",
) -> dict[str, dict[str, list[float]]]:
    """Thresholds of the foreground probability, to be put into `bank.thresholds`: {property: {layer: one per step}}.

    'validation': per probe that of `THRESHOLDS` with the best mean Dice over the validation images. A number in (0, 1)
    is used as it is; 0.5 is the paper's argmax of two logits. Raises UserError for any other threshold.
    """
    binary = {name: item for name, item in bank.properties.items() if item.binary}
    if threshold != "validation":
        fixed = check_threshold(threshold)
        return {name: {layer: [fixed] * len(bank.steps) for layer in bank.layers} for name in binary}
    chosen: dict[str, dict[str, list[float]]] = {name: {} for name in binary}
    for name, item in binary.items():
        target = target_maps(targets, item, activations.names)[split.validation]
        pooled = {grid: pool_target(target, grid) for grid in activations.grids}
        for layer in bank.layers:
            maps = predict_maps(bank, activations, name, layer, split.validation)
            scores = areas_at_thresholds(maps, pooled[grid_of(maps)], THRESHOLDS).dice().mean(-1)
            chosen[name][layer] = [THRESHOLDS[index] for index in scores.argmax(0).tolist()]
    return chosen


def check_threshold(threshold: object) -> float:
    """The threshold, if it is a number in (0, 1). Raises UserError otherwise."""
    if isinstance(threshold, bool) or not isinstance(threshold, float | int) or not 0 < threshold < 1:
        raise UserError(f"threshold {threshold!r}: give a number between 0 and 1, or 'validation'.")
    return float(threshold)


def candidate_thresholds(threshold: Threshold) -> list[float]:
    """`THRESHOLDS`, to choose from on validation images, or the given one alone. Raises as `check_threshold`."""
    return list(THRESHOLDS) if threshold == "validation" else [check_threshold(threshold)]


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

    targets: label maps by property. rmse is in standard deviations of the training labels.
    """
    found: list[ScoreBlock] = []
    for part in PARTS[1:]:
        rows = split.rows(part)
        found += score_images(bank, activations, targets, rows, part, model=model, control=control, probe=probe)
    return found


def score_images(
    bank: ProbeBank,
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    rows: Sequence[int],
    part: str,
    *,
    model: str,
    control: str = "none",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """As `score_bank`, on the images of these rows, which are of a `part` of a split."""
    found: list[ScoreBlock] = []
    moments = list(zip(bank.steps, activations.timesteps, strict=True))
    names = [activations.names[row] for row in rows]
    prepared = {}
    for name, item in bank.properties.items():
        maps = target_maps(targets, item, activations.names)[list(rows)]
        prepared[name] = item.prepared(maps, bank.standardisations[name], activations.grids)
    for layer in bank.layers:
        for name, outputs in _outputs(bank, activations, layer, rows).items():
            item = bank.properties[name]
            maps = item.decode(outputs, bank.standardisations[name])
            thresholds = bank.thresholds[name][layer] if item.binary else []
            for metric, values in item.scores(maps, prepared[name][grid_of(maps)], thresholds).items():
                keys = (model, layer, name, probe, control, part, metric)
                found.append(ScoreBlock(*keys, moments, names, values.double().cpu().numpy()))
    return found


@torch.no_grad()
def _outputs(bank: ProbeBank, activations: ReadableActivations, layer: str, rows: Sequence[int]) -> dict[str, Tensor]:
    return bank(layer, activations.values[layer][:, list(rows)])

"""What a probe has to beat: the same network with its weights permuted, and pixel position alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffprobe.probes.functional import pool
from diffprobe.probes.properties import property_named
from diffprobe.probes.scoring import (
    SCORED_PARTS,
    Threshold,
    best_thresholds,
    check_threshold,
    pooled_targets,
    score_maps,
    score_rows,
)
from diffprobe.probes.splits import Split
from diffprobe.probes.tables import NO_STEP, Score
from diffprobe.probes.targets import target_maps

Denoiser = TypeVar("Denoiser", bound=nn.Module)


@torch.no_grad()
def permute_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser whose every weight and bias tensor has its own elements in a random order.

    Each tensor keeps its distribution and the network its architecture; what training arranged is gone. Drawn on the
    CPU in the order of `named_parameters`, so it depends on nothing but the seed. The original is left as it is.
    """
    permuted = copy.deepcopy(denoiser)
    generator = torch.Generator().manual_seed(seed)
    for parameter in permuted.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return permuted


def position_map(target: Tensor) -> Tensor:
    """The best map [H, W] that sees no image: the mean over training target maps [images, H, W] at every pixel.

    It minimises cross entropy and squared error among all functions of position.
    """
    return target.mean(0)


def position_scores(
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    *,
    names: Sequence[str],
    model: str,
    threshold: Threshold = "validation",
    probe: str = "linear",
) -> list[Score]:
    """Scores of `position_map` on every validation and test image, treated as the probes are (threshold, units).

    targets: label maps [images, H, W] by property, in the order of `names`. Rows have layer 'position', control
    'position' and no step. Raises UserError for a bad threshold, an unknown property, or label maps that do not fit.
    """
    found: list[Score] = []
    fixed = None if threshold == "validation" else check_threshold(threshold)
    for name in properties:
        item = property_named(name)
        target = target_maps(targets, name, names)
        target = item.standardisation(target[split.train]).apply(target)
        prediction = position_map(target[split.train])
        grid = (prediction.shape[0], prediction.shape[1])
        maps = prediction.expand(1, 1, *grid)
        cut = [0.5] if fixed is None else [fixed]
        if item.binary and fixed is None:
            cut = best_thresholds(maps, pool(target[split.validation], grid))
        for part in SCORED_PARTS:
            rows: list[int] = getattr(split, part)
            pooled = pooled_targets(item, target[rows], [grid])[grid]
            keys = (model, "position", name, probe, "position", part)
            images = [names[row] for row in rows]
            for metric, values in score_maps(item, maps, pooled, cut).items():
                found += score_rows(keys, [(NO_STEP, None)], images, metric, values.expand(1, len(rows)))
    return found

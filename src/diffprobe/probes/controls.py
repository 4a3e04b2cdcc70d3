"""What a probe has to beat: the network with its weights permuted or new, shuffled labels, and pixel position alone."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

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
from diffprobe.probes.splits import PARTS, Split
from diffprobe.probes.tables import Score
from diffprobe.probes.targets import target_maps
from diffprobe.tables import NO_STEP

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


@torch.no_grad()
def fresh_weights(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """A copy of the denoiser, a network of diffusers, whose every parameter is as its class makes it: never trained.

    Tables of positions and other buffers, which nobody trained, are the original's, and so are precision and place.
    Drawn on the CPU in float32, so it depends on nothing but class, configuration and seed; torch's own random state
    is not touched. The original is left as it is.
    """
    network: Any = type(denoiser)
    config: Any = denoiser.config
    known = inspect.signature(network.__init__).parameters
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        new = network.from_config({key: config[key] for key in config if key in known})
    fresh = copy.deepcopy(denoiser)
    for name, parameter in fresh.named_parameters():
        parameter.copy_(new.get_parameter(name))
    return fresh


def shuffled_targets(targets: Mapping[str, Tensor], split: Split, seed: int = 0) -> dict[str, Tensor]:
    """Label maps [images, H, W] by property, dealt out anew among the images of each part of the split.

    No image keeps its own, unless it is alone in its part; all properties are dealt alike. A probe that is trained,
    selected and scored with these is the control of Hewitt and Liang (2019, "Designing and Interpreting Probes with
    Control Tasks"), where as there it is judged by the shuffled labels, not by the true ones: what is left is what all
    label maps share, such as how often and where there is an object, read from the activations as they are. Their
    control labels belong to word types, which training and test have in common; images are not, so here a probe cannot
    score by learning labels by heart, and the control asks for less capacity than theirs.

    The training labels stay the same set, so standardisation and the unit of rmse stay the same too.
    """
    generator = torch.Generator().manual_seed(seed)
    source = torch.arange(len(next(iter(targets.values()))))
    for part in PARTS:
        rows = torch.tensor(getattr(split, part))
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        source[shuffled] = shuffled.roll(1)  # one cycle through all of them
    return {name: maps[source] for name, maps in targets.items()}


def position_map(target: Tensor) -> Tensor:
    """The best map [H, W] that sees no image: the mean over training target maps [images, H, W] at every pixel.

    It minimises cross entropy and squared error on the training images among all functions of position, so there is no
    control with a linear probe on the coordinates (x, y) beside it: that is one such function, and a weaker one.
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

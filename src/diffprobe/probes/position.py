"""What pixel position alone predicts: the control that sees no image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffprobe.probes.one_pass import OnePass
from diffprobe.probes.properties import Property, Standardisation
from diffprobe.probes.ridge import PixelSums
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.scoring import Threshold
from diffprobe.probes.splits import Split
from diffprobe.probes.targets import target_maps
from diffprobe.tables import NO_STEP

POSITION = "position"


def position_scores(
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    *,
    names: Sequence[str],
    model: str,
    threshold: Threshold = "validation",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """Scores of `PositionMap` on every validation and test image, treated as the probes are (threshold, units).

    targets: label maps [images, H, W] by property, in the order of `names`. Rows have layer 'position', control
    'position' and no step. Raises UserError for a bad threshold, an unknown property, or label maps that do not fit.
    """
    maps = {name: target_maps(targets, name, names) for name in properties}
    once = OnePass(PositionLearner(properties), properties, threshold, (model, probe, POSITION), {NO_STEP: None})

    def part(rows: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        wanted = {name: values[list(rows)] for name, values in maps.items()}
        return {POSITION: next(iter(wanted.values()))[None, :, None]}, wanted

    once.fit(*part(split.train))
    once.solve(_alone)
    once.validate(*part(split.validation), [names[row] for row in split.validation])
    once.choose(_alone, _alone)
    once.test(*part(split.test), [names[row] for row in split.test])
    return once.blocks(names)


def _alone(whole: Any) -> Any:
    """One process has seen all."""
    return whole


class PositionLearner:
    """Sums the training labels at every pixel, while images pass by, for `OnePass` on the one layer 'position'."""

    def __init__(self, properties: Sequence[str]) -> None:
        self.pixels = PixelSums(properties)
        self.sums: dict[str, Tensor] = {}
        self.count = torch.zeros(())

    def add(self, values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        self.pixels.add(targets)
        for name, maps in targets.items():
            self.sums[name] = self.sums.get(name, 0) + maps.double().sum(0)
            self.count = self.count.to(maps.device)
        self.count = self.count + len(next(iter(targets.values())))

    def merge(self, reduce: Callable[[Tensor], Tensor]) -> None:
        self.pixels.merge(reduce)
        self.sums = {name: reduce(total) for name, total in self.sums.items()}
        self.count = reduce(self.count)

    def solve(self) -> PositionMap:
        standardisations = self.pixels.standardisations()
        maps = [standardisations[name].apply(self.sums[name] / self.count) for name in self.pixels.properties]
        return PositionMap(torch.stack(maps).float(), standardisations)


class PositionMap:
    """The mean training label at every pixel [properties, H, W], standardised, or a probability. It minimises squared
    error and cross entropy on the training images among all functions of position, so there is no control with a linear
    probe on the coordinates (x, y) beside it: that is one such function, and a weaker one."""

    def __init__(self, maps: Tensor, standardisations: dict[str, Standardisation]) -> None:
        self.maps, self.standardisations = maps, standardisations

    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """[1, batch, any, H, W], of which only the size is looked at -> [1, properties, 1, batch, H, W]"""
        return self.maps[None, :, None, None].expand(-1, -1, -1, activation.shape[1], -1, -1)

    def errors(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        wanted = torch.stack([one.apply(targets[name]) for name, one in self.standardisations.items()])
        return (outputs - wanted[:, None].to(outputs)).square().mean((-2, -1))

    def decode(self, item: Property, outputs: Tensor) -> Tensor:
        return outputs

    def take(self, chosen: object) -> PositionMap:
        return self

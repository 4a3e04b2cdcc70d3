"""What pixel position alone predicts: the control that sees no image, summed up while images pass by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from diffprobe.probes.properties import Property, Standardisation
from diffprobe.probes.ridge import PixelSums

POSITION = "position"


class PositionLearner:
    """Sums the training labels at every pixel, for `one_pass.OnePass` on the one layer 'position'."""

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
    error and cross entropy among all functions of position."""

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

"""The tokens that CKA is made of: a few places of every image, at every layer and step, taken while images pass by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from math import prod
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import psutil
import torch
from torch import Tensor

from diffprobe.activations.budget import MEMORY_SHARE, in_units
from diffprobe.analyses.similarity.cka import Similarities, hsic, normalised
from diffprobe.errors import UserError
from diffprobe.properties.tokens import Grid, token_means

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer


def coarser(one: Layer, other: Layer) -> Grid:
    """The grid on which two layers are compared: of the smaller height and width."""
    return min(one.height, other.height), min(one.width, other.width)


def grids_of(layers: Sequence[Layer]) -> dict[Grid, list[Layer]]:
    """Every grid on which two of the layers are compared, and the layers that are at least as fine."""
    grids = sorted({coarser(*pair) for pair in combinations_with_replacement(layers, 2)})
    return {
        (height, width): [layer for layer in layers if layer.height >= height and layer.width >= width]
        for height, width in grids
    }


def places_of(image: str, grid: Grid, tokens: int, seed: int) -> np.ndarray:
    """The places of an image on a grid, in increasing order: all, or as many as `tokens`, drawn for each image.

    They depend on image, grid and seed alone, so not on the order or the batches in which images come.
    """
    every = prod(grid)
    if every <= tokens:
        return np.arange(every)
    random = np.random.default_rng([seed, crc32(image.encode()), *grid])
    return np.sort(random.choice(every, tokens, replace=False))


def kept_bytes(layers: Sequence[Layer], steps: int, images: int, tokens: int) -> int:
    """The most memory that CKA takes: tokens in float32, those of one grid in float64, and sums of all pairs,
    without each image."""
    numbers = [
        steps * images * min(tokens, prod(grid)) * sum(layer.channels for layer in chosen)
        for grid, chosen in grids_of(layers).items()
    ]
    conditions = len(layers) * steps
    rows = 2 * 8 * conditions * images * tokens**2
    return 4 * sum(numbers) + 8 * max(numbers) + rows + 6 * 8 * images * conditions**2


def check_free(size: int, what: str) -> None:
    """Raises UserError where so many bytes do not fit into the free memory."""
    free = psutil.virtual_memory().available
    if size > MEMORY_SHARE * free:
        raise UserError(
            f"{what} need {in_units(size)} of memory, of which {in_units(free)} are free; choose fewer layers, steps, "
            "test images (data.count, data.fractions) or tokens (analysis.tokens)"
        )


class KeptTokens:
    """Tokens of test images, kept until all have come; each layer's on every grid on which it is compared.

    No Gram matrix over all images can be made without the tokens of all, so these are what is kept: `tokens` places of
    an image, after its activations were averaged over the area of each place of the coarser grid.
    """

    def __init__(self, layers: Sequence[Layer], steps: int, tokens: int, seed: int) -> None:
        self.layers, self.steps, self.tokens, self.seed = list(layers), steps, tokens, seed
        self.grids = grids_of(layers)
        self.images: list[str] = []
        self._kept: dict[tuple[Grid, str], list[np.ndarray]] = {}  # [steps, batch, tokens, channels]

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Activations {layer: [steps, images, channels, h, w]} of named images."""
        self.images += names
        for grid, layers in self.grids.items():
            places = torch.from_numpy(np.stack([places_of(name, grid, self.tokens, self.seed) for name in names]))
            for layer in layers:
                activation = values[layer.name]
                pooled = token_means(activation.float().flatten(0, 1), grid).flatten(-2)  # [steps x images, c, places]
                pooled = pooled.view(*activation.shape[:3], -1)
                wanted = places.to(pooled.device)[None, :, None].expand(*activation.shape[:3], -1)
                taken = pooled.gather(-1, wanted).transpose(-1, -2)
                self._kept.setdefault((grid, layer.name), []).append(taken.cpu().numpy())

    def similarities(self) -> Similarities:
        """CKA of all conditions, layer after layer and its steps in order, each pair on the coarser of its grids.
        Once, since the tokens are given away."""
        conditions, images = len(self.layers) * self.steps, len(self.images)
        value, biased = (np.full((conditions, conditions), np.nan) for _ in range(2))
        without = np.full((images, conditions, conditions), np.nan)
        place = {layer.name: number for number, layer in enumerate(self.layers)}
        for grid, layers in self.grids.items():
            found = hsic([tokens for layer in layers for tokens in self._conditions(grid, layer)])
            on_grid = np.array([[coarser(one, other) == grid for other in layers] for one in layers])
            own = np.concatenate([place[layer.name] * self.steps + np.arange(self.steps) for layer in layers])
            rows, columns = np.nonzero(np.kron(on_grid, np.ones((self.steps, self.steps), bool)))
            for target, values in ((value, found.unbiased), (biased, found.biased)):
                target[own[rows], own[columns]] = normalised(values)[rows, columns]
            without[:, own[rows], own[columns]] = normalised(found.without)[:, rows, columns]
        return Similarities(value, without, biased)

    def _conditions(self, grid: Grid, layer: Layer) -> list[np.ndarray]:
        """One of each step, [images, tokens, channels]; given away, so that they are held once."""
        return list(np.concatenate(self._kept.pop((grid, layer.name)), 1))

"""Edge-aware smoothness: a predicted map should change only where the image does.

The penalty of an image is mean |d_x p| exp(-|d_x I|) + mean |d_y p| exp(-|d_y I|) over its pixels, with |d I| the mean
over colour channels (Godard, Mac Aodha and Brostow 2017, "Unsupervised Monocular Depth Estimation with Left-Right
Consistency"), and p the prediction after nearest-neighbour upsampling. Inside a token p does not change, so only the
pixels at borders of tokens count, and the sum over them needs the image once: `edge_weights`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes.functional import Grid


class Edges(NamedTuple):
    """What a unit step of a map costs from each token to the one on its `right` [images, h, w - 1] and to the one
    `down` from it [images, h - 1, w]: little where the image has an edge."""

    right: Tensor
    down: Tensor


def edge_weights(images: Tensor, grid: Grid) -> Edges:
    """Of images [images, 3, H, W] in [0, 1], for maps on `grid` (h, w).

    Raises UserError for images that have fewer pixels than the grid has tokens.
    """
    size: Grid = (images.shape[-2], images.shape[-1])
    if size[0] < grid[0] or size[1] < grid[1]:
        raise UserError(
            f"probe.smoothness: maps of {grid[0]}x{grid[1]} tokens need images at least that large, these are "
            f"{size[0]}x{size[1]}"
        )
    rows, columns = (_token_of_pixel(pixels, tokens) for pixels, tokens in zip(size, grid, strict=True))
    right = _border_weights(images, rows, columns)
    down = _border_weights(images.transpose(-1, -2), columns, rows)
    return Edges(right, down.transpose(-1, -2))


def smoothness(maps: Tensor, edges: Edges) -> Tensor:
    """The penalty of maps [..., images, h, w] -> [..., images]: that of the upsampled maps, where H and W are multiples
    of h and w."""
    across = maps.diff(dim=-1).abs() * edges.right
    along = maps.diff(dim=-2).abs() * edges.down
    return across.sum((-2, -1)) + along.sum((-2, -1))


def _border_weights(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """[images, 3, H, W] and the token of each pixel along both axes -> the `right` of `Edges`."""
    weights = (-images.float().diff(dim=-1).abs().mean(1)).exp()  # [images, H, W - 1]
    borders = columns.diff().nonzero()[:, 0]
    summed = weights.new_zeros(len(images), int(rows[-1]) + 1, len(borders))
    return summed.index_add_(1, rows, weights[..., borders]) / max(1, weights[0].numel())


def _token_of_pixel(pixels: int, tokens: int) -> Tensor:
    """Which token each pixel along an axis takes its value from, [pixels]."""
    return torch.arange(pixels) * tokens // pixels

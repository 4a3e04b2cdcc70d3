"""Maps at the resolution of tokens: means over each token's pixels, and predictions on the grid of a target."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diffprobe.precision import to_float64

Grid = tuple[int, int]


def grid_of(maps: Tensor) -> Grid:
    """Height and width of maps [..., h, w]."""
    return maps.shape[-2], maps.shape[-1]


def token_means(maps: Tensor, grid: Grid) -> Tensor:
    """Mean of maps [images, H, W] or [images, planes, H, W] over the pixels of each token of `grid` (h, w).

    Patches overlap where H and W are no multiples of h and w.
    """
    planes = maps if maps.ndim == 4 else maps[:, None]
    return F.adaptive_avg_pool2d(planes, grid).view(*maps.shape[:-2], *grid)


def divides(grid: Grid, maps: Tensor) -> bool:
    """Whether every token of `grid` has equally many pixels of maps [..., H, W]."""
    return maps.shape[-2] % grid[0] == 0 and maps.shape[-1] % grid[1] == 0


def upsampled(values: Tensor, grid: Grid) -> Tensor:
    """Values [..., h, w] on a finer grid, each pixel with its token's value."""
    if grid_of(values) == tuple(grid):
        return values
    leading = values.shape[:-2]
    return F.interpolate(values.reshape(-1, 1, *values.shape[-2:]), tuple(grid), mode="nearest").view(*leading, *grid)


@dataclass(frozen=True)
class PooledTarget:
    """Target maps on a grid of tokens: `mean` over each token's pixels [images, h, w], `variance` over all pixels of an
    image [images], and whether the image is `constant` [images]."""

    mean: Tensor
    variance: Tensor
    constant: Tensor


def pool_target(target: Tensor, grid: Grid) -> PooledTarget:
    """Statistics of target maps [images, H, W] for predictions on `grid` (h, w), or on (H, W) if that is no divisor."""
    values = to_float64(target)
    flat = values.flatten(-2)
    return PooledTarget(
        mean=token_means(values, grid) if divides(grid, values) and grid != grid_of(values) else values,
        variance=(flat - flat.mean(-1, keepdim=True)).square().mean(-1),
        constant=flat.amax(-1) == flat.amin(-1),
    )


def aligned(prediction: Tensor, target: Tensor | PooledTarget) -> tuple[Tensor, PooledTarget]:
    """The prediction [..., images, h, w] on the grid of the pooled target, upsampled only where it has to be."""
    pooled = pool_target(target, grid_of(prediction)) if isinstance(target, Tensor) else target
    return upsampled(to_float64(prediction), grid_of(pooled.mean)), pooled

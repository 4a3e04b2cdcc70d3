"""Scores per image between predictions at token resolution and targets at image resolution, without upsampling.

A prediction [..., images, h, w] stands for its nearest-neighbour upsampling to the target's [images, H, W]: every pixel
of a token carries the token's value. If H and W are multiples of h and w, the image-resolution score follows exactly
from the target's mean over each token's pixels, so a target is pooled once and reused by every probe. Otherwise the
prediction is upsampled first. All results are [..., images] in float64 (float32 where the device has no float64).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.precision import to_float64

Grid = tuple[int, int]

_RADIX_FROM = 2**15  # from here on torch sorts a single row of integers on the CPU by radix, several times faster


@dataclass(frozen=True)
class PooledTarget:
    """A target map seen from a grid of tokens: `mean` over each token's pixels [images, h, w], `variance` over all
    pixels of an image [images], and whether the image is `constant` [images]."""

    mean: Tensor
    variance: Tensor
    constant: Tensor


def token_means(maps: Tensor, grid: Grid) -> Tensor:
    """Mean of maps [images, H, W] over the pixels of each token of `grid` (h, w): [images, h, w].

    Exact patches if H and W are multiples of h and w, else the overlapping patches of adaptive average pooling.
    """
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]


def pool_target(target: Tensor, grid: Grid) -> PooledTarget:
    """Statistics of target maps [images, H, W] for predictions on `grid` (h, w), or on (H, W) if that is no divisor."""
    size = (target.shape[-2], target.shape[-1])
    divides = size[0] % grid[0] == 0 and size[1] % grid[1] == 0
    values = to_float64(target)
    flat = values.flatten(-2)
    return PooledTarget(
        mean=token_means(values, grid) if divides and grid != size else values,
        variance=(flat - flat.mean(-1, keepdim=True)).square().mean(-1),
        constant=flat.amax(-1) == flat.amin(-1),
    )


def average_ranks(values: Tensor) -> Tensor:
    """Ranks 1..n along the last axis of [..., n]; equal values share their mean rank (as scipy.stats.rankdata)."""
    keys = _sort_keys(values).reshape(-1, values.shape[-1])
    if keys.device.type == "cpu" and keys.dtype == torch.int32 and keys.shape[-1] >= _RADIX_FROM:
        ranks = torch.empty(keys.shape, dtype=torch.float64)
        for row, place in zip(keys, ranks, strict=True):
            place.copy_(_mean_ranks(*row.sort(stable=True)))
        return ranks.view(values.shape)
    return _mean_ranks(*keys.sort(dim=-1)).view(values.shape)


def _sort_keys(values: Tensor) -> Tensor:
    """Integers in the order of the values, and equal where those are: sorted faster than floats. Float64 stays."""
    if values.dtype == torch.float64:
        return values
    bits = (values.float() + 0.0).view(torch.int32)  # + 0.0: -0.0 equals 0.0 and must share its bits
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _mean_ranks(ordered: Tensor, order: Tensor) -> Tensor:
    """Average ranks [rows * n] of rows [rows, n] or one row [n], from what `sort` gives."""
    count = ordered.shape[-1]
    edge = torch.ones_like(ordered[..., :1], dtype=torch.bool)
    starts = torch.cat([edge, ordered[..., 1:] != ordered[..., :-1]], -1)
    group = starts.flatten().cumsum(0) - 1  # of equal values; numbered through all rows
    sizes = torch.bincount(group)
    twice = (2 * sizes.cumsum(0) - sizes + 1).index_select(0, group)  # twice the mean of the group's positions
    if ordered.ndim == 2:
        before = torch.arange(len(ordered), device=ordered.device)[:, None] * count
        order, twice = (order + before).flatten(), (twice.view_as(order) - 2 * before).flatten()
    ranks = to_float64(twice) / 2
    return torch.empty_like(ranks).index_copy_(0, order, ranks)


def rank_maps(maps: Tensor) -> Tensor:
    """Average ranks of the pixels of each map [..., h, w], as maps."""
    return average_ranks(maps.flatten(-2)).view(maps.shape)


def dice(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """2 |P and T| / (|P| + |T|) of masks: prediction [..., images, h, w] in {0, 1}, target [images, H, W] in {0, 1}.

    Both empty is agreement: 1. One empty: 0. (Dice 1945; the foreground score of Chen et al. 2023.)
    """
    mask, pooled = _aligned(prediction, target)
    overlap = (mask * pooled.mean).sum((-2, -1))
    total = mask.sum((-2, -1)) + pooled.mean.sum((-2, -1))
    return torch.where(total > 0, 2 * overlap / total.where(total > 0, 1), 1.0)


def background_dice(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Dice of the complements of two masks, see `dice`."""
    mask, pooled = _aligned(prediction, target)
    return dice(1 - mask, PooledTarget(1 - pooled.mean, pooled.variance, pooled.constant))


def pearson(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Pearson correlation over pixels of prediction [..., images, h, w] and target [images, H, W].

    NaN where either is constant (the correlation is undefined) or the prediction holds NaN.
    """
    values, pooled = _aligned(prediction, target)
    flat = values.flatten(-2)
    constant = (flat.amax(-1) == flat.amin(-1)) | pooled.constant
    deviation = flat - flat.mean(-1, keepdim=True)
    means = pooled.mean.flatten(-2)
    # Inner products, which need no maps in between
    covariance = torch.einsum("...in,in->...i", deviation, means - means.mean(-1, keepdim=True))
    variance = torch.einsum("...in,...in->...i", deviation, deviation)
    correlation = covariance / (variance * pooled.variance * flat.shape[-1]).sqrt()
    return correlation.clamp(-1, 1).masked_fill(constant, float("nan"))


def spearman(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Spearman rank correlation: the Pearson correlation of average ranks. NaN as in `pearson`.

    A target given as `PooledTarget` must be the pooled *ranks*: `pool_target(rank_maps(target), grid)`. The ranks of an
    upsampled prediction are an affine function of the ranks of its tokens, so ranking the tokens suffices.
    """
    grid = (prediction.shape[-2], prediction.shape[-1])
    ranks = pool_target(rank_maps(target), grid) if isinstance(target, Tensor) else target
    missing = prediction.isnan().flatten(-2).any(-1)
    return pearson(rank_maps(_upsampled(prediction, ranks)), ranks).masked_fill(missing, float("nan"))


def rmse(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Root mean squared error over pixels of prediction [..., images, h, w] and target [images, H, W]; their units."""
    values, pooled = _aligned(prediction, target)
    within = (pooled.variance - pooled.mean.var((-2, -1), correction=0)).clamp(min=0)
    return ((values - pooled.mean).square().mean((-2, -1)) + within).sqrt()


def _aligned(prediction: Tensor, target: Tensor | PooledTarget) -> tuple[Tensor, PooledTarget]:
    """The prediction on the grid of the pooled target, upsampled only where it has to be."""
    pooled = pool_target(target, (prediction.shape[-2], prediction.shape[-1])) if isinstance(target, Tensor) else target
    return _upsampled(to_float64(prediction), pooled), pooled


def _upsampled(values: Tensor, pooled: PooledTarget) -> Tensor:
    """Values [..., images, h, w] on the grid of the pooled target, each pixel with its token's value."""
    grid = pooled.mean.shape[-2:]
    if values.shape[-2:] == grid:
        return values
    leading = values.shape[:-2]
    return F.interpolate(values.flatten(0, -3)[:, None], tuple(grid), mode="nearest").view(*leading, *grid)

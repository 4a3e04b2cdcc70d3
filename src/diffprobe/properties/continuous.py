"""Quantities: one output a token, Huber loss on standardised labels, and correlations over the pixels of an image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.precision import to_float64
from diffprobe.properties.base import Picture, Property, Standardisation, checked_spread
from diffprobe.properties.tokens import Grid, PooledTarget, aligned, grid_of, pool_target, upsampled

_RADIX_FROM = 2**15  # from here on torch sorts a single row of integers on the CPU by radix, several times faster


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


def pearson(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Pearson correlation over pixels; NaN where either map is constant or the prediction holds NaN."""
    values, pooled = aligned(prediction, target)
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

    A `PooledTarget` must be of *ranks*: `pool_target(rank_maps(target), grid)`. The ranks of an upsampled prediction
    are an affine function of the ranks of its tokens, so ranking the tokens suffices.
    """
    ranks = pool_target(rank_maps(target), grid_of(prediction)) if isinstance(target, Tensor) else target
    missing = prediction.isnan().flatten(-2).any(-1)
    return pearson(rank_maps(upsampled(prediction, grid_of(ranks.mean))), ranks).masked_fill(missing, float("nan"))


def rmse(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """Root mean squared error over pixels, in the units of the maps."""
    values, pooled = aligned(prediction, target)
    within = (pooled.variance - pooled.mean.var((-2, -1), correction=0)).clamp(min=0)
    return ((values - pooled.mean).square().mean((-2, -1)) + within).sqrt()


def huber(outputs: Tensor, planes: Tensor) -> Tensor:
    """Huber loss (delta 1) between outputs [..., 1, h, w] and the mean target of each token [..., 1, h, w] -> [...].

    The paper takes the loss over pixels after nearest-neighbour upsampling. Its quadratic part has the same gradient
    here; its linear part is applied to the token's mean residual instead. Where the target is constant inside each
    token both losses are equal.
    """
    prediction = outputs.squeeze(-3)
    target = planes.squeeze(-3).expand_as(prediction)
    return F.huber_loss(prediction, target, reduction="none", delta=1.0).mean((-2, -1))


@dataclass(frozen=True)
class Continuous(Property):
    """A quantity.

    Attributes:
        colours: of its maps, a colour map of matplotlib.
    """

    colours: str = "viridis"

    kind: ClassVar[str] = "continuous"
    flat: ClassVar[tuple[str, str]] = ("the same value everywhere", ", so they have no rank correlation")

    @property
    def outputs(self) -> int:
        return 1

    @property
    def metrics(self) -> tuple[str, ...]:
        return "spearman", "pearson", "rmse"

    def target(self, labels: Tensor) -> Tensor:
        return labels.float()

    def sums(self, target: Tensor) -> Tensor:
        """Number, sum and sum of squares of the pixels' values."""
        values = to_float64(target)
        return torch.stack([values.new_tensor(values.numel()), values.sum(), values.square().sum()])

    def standardisation_of(self, sums: Tensor) -> Standardisation:
        count, total, squares = sums.tolist()
        mean = total / count
        variance = squares / count - mean**2
        # What rounding leaves of a constant's is no variance
        found = Standardisation(mean, 0.0 if variance <= 1e-12 * mean**2 else variance**0.5)
        checked_spread(self.name, found.mean, found.std)
        return found

    def standardise(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        return standardisation.apply(planes)

    def loss(self, outputs: Tensor, planes: Tensor) -> Tensor:
        return huber(outputs, planes)

    def coding(self, standardisation: Standardisation) -> tuple[list[float], list[float]]:
        mean = standardisation.mean
        assert isinstance(mean, float | int)
        return [1 / standardisation.std], [-mean / standardisation.std]

    def decode(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        """In standardised units."""
        return outputs.squeeze(-3)

    def in_label_units(self, prediction: Tensor, standardisation: Standardisation) -> Tensor:
        return standardisation.undo(prediction)

    def of_labels(self, target: Tensor, standardisation: Standardisation) -> Tensor:
        return standardisation.apply(target)

    def constant(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        return standardisation.apply(planes[0])

    def prepared(self, target: Tensor, standardisation: Standardisation, grids: Iterable[Grid]) -> dict[Grid, Any]:
        """By metric the values or the ranks, pooled."""
        standardised = standardisation.apply(target)
        ranks = rank_maps(standardised)
        found = {}
        for grid in grids:
            values = pool_target(standardised, grid)
            found[grid] = {"spearman": pool_target(ranks, grid), "pearson": values, "rmse": values}
        return found

    def scores(
        self, prediction: Tensor, prepared: Mapping[str, PooledTarget], thresholds: Sequence[float] = ()
    ) -> Mapping[str, Tensor]:
        return {
            "spearman": spearman(prediction, prepared["spearman"]),
            "pearson": pearson(prediction, prepared["pearson"]),
            "rmse": rmse(prediction, prepared["rmse"]),
        }

    def picture(self, maps: np.ndarray, label: np.ndarray) -> Picture:
        low, high = np.percentile(label, [2, 98]).tolist()
        return Picture(maps, self.colours, low, high)

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), "colours": self.colours}

"""Relative inverse depth: a quantity whose scale and shift are unknown, so errors are taken after alignment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from diffprobe.properties.base import Standardisation
from diffprobe.properties.continuous import Continuous
from diffprobe.properties.tokens import Grid, divides, grid_of, upsampled

RATIO = 1.25  # Eigen, Puhrsch and Fergus (2014)


class Patches(NamedTuple):
    """Inverse depths of some images, [images, tokens, pixels of a token], as they are and `robust`; float32."""

    labels: Tensor
    robust: Tensor

    @staticmethod
    def of(target: Tensor, grid: Grid) -> Patches:
        """Targets [images, H, W] for predictions on `grid`; where that is no divisor, each pixel is a token."""
        grid = grid if divides(grid, target) else grid_of(target)
        height, width = target.shape[-2] // grid[0], target.shape[-1] // grid[1]
        parts = target.unflatten(-1, (grid[1], width)).unflatten(-3, (grid[0], height))  # [images, h, p, w, q]
        labels = parts.transpose(2, 3).flatten(3).flatten(1, 2).float().contiguous()
        return Patches(labels, robust(labels.flatten(1)).view_as(labels))


def robust(values: Tensor) -> Tensor:
    """Values [..., n] less their median (of an even number the lower one) and divided by their mean distance from it;
    NaN where they are constant (Ranftl et al. 2020, "Towards Robust Monocular Depth Estimation", equation 5)."""
    away = values - values.median(-1, keepdim=True).values
    spread = away.abs().mean(-1, keepdim=True)
    return away / spread.where(spread > 0, torch.nan)


def fitted(prediction: Tensor, target: Tensor) -> Tensor:
    """The prediction [..., n] with the scale and shift that bring it nearest to the target [n] in squared error; NaN
    where it is constant."""
    level, away = target.mean(), prediction - prediction.mean(-1, keepdim=True)
    squares = away.square().sum(-1, keepdim=True)
    constant = prediction.amax(-1, keepdim=True) == prediction.amin(-1, keepdim=True)
    scale = (away * (target - level)).sum(-1, keepdim=True) / squares.masked_fill(constant, torch.nan)
    return scale * away + level


def depth_errors(prediction: Tensor, patches: Patches, image: int) -> dict[str, Tensor]:
    """Errors of inverse depths [..., tokens] of one image, over its pixels: [...] each.

    `ssi_error`: mean absolute difference of robust maps (Ranftl et al. 2020, equation 7 without trimming). After
    alignment by `fitted`, of depth: `abs_rel`, the mean absolute relative error, and `delta1`, the share of pixels
    where the ratio is below 1.25 (Eigen et al. 2014). No predicted depth is beyond the largest of the labels.

    NaN where the prediction is constant, and but for `ssi_error` where a label is not above 0, since depth is then
    unknown.
    """
    labels, nearest = patches.labels[image], patches.labels[image].amin()
    nearness = fitted(prediction, labels.mean(-1))
    missing = nearness.isnan().any(-1) | (nearest <= 0)
    ratio = labels / nearness.clamp(min=nearest)[..., None]  # predicted depth over true depth
    near = (ratio < RATIO) & (ratio > 1 / RATIO)
    return {
        "ssi_error": (robust(prediction)[..., None] - patches.robust[image]).abs_().mean((-2, -1)),
        "abs_rel": (ratio - 1).abs_().mean((-2, -1)).masked_fill(missing, torch.nan),
        "delta1": near.sum((-2, -1)).div(labels.numel()).masked_fill(missing, torch.nan),
    }


@dataclass(frozen=True)
class Depth(Continuous):
    """Relative inverse depth, larger is nearer."""

    kind: ClassVar[str] = "depth"

    @property
    def metrics(self) -> tuple[str, ...]:
        return *super().metrics, "ssi_error", "abs_rel", "delta1"

    def prepared(self, target: Tensor, standardisation: Standardisation, grids: Iterable[Grid]) -> dict[Grid, Any]:
        found = super().prepared(target, standardisation, grids)
        return {grid: {**own, "patches": Patches.of(target, grid)} for grid, own in found.items()}

    def scores(
        self, prediction: Tensor, prepared: Mapping[str, Any], thresholds: Sequence[float] = ()
    ) -> Mapping[str, Tensor]:
        patches: Patches = prepared["patches"]
        tokens = upsampled(prediction.float(), grid_of(prepared["pearson"].mean)).flatten(-2)
        each = [depth_errors(tokens[..., image, :], patches, image) for image in range(tokens.shape[-2])]
        errors = {name: torch.stack([one[name] for one in each], -1).double() for name in each[0]}
        return {**super().scores(prediction, prepared, thresholds), **errors}

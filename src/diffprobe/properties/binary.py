"""Masks: two logits a token, cross entropy, and Dice of the mask where the probability is above a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.properties.base import Picture, Property, Standardisation
from diffprobe.properties.tokens import Grid, PooledTarget, aligned, grid_of, pool_target, upsampled

SLOPE = 4.0  # the log odds of a probability p are 4 (p - 1/2) to first order


class MaskAreas(NamedTuple):
    """Areas of predicted masks, of target masks, of both together, and of whole images, in tokens or pixels."""

    predicted: Tensor
    target: Tensor
    overlap: Tensor
    image: int

    def complements(self) -> MaskAreas:
        """Of the complements of the masks."""
        outside = self.image - self.predicted - self.target + self.overlap
        return MaskAreas(self.image - self.predicted, self.image - self.target, outside, self.image)

    def dice(self) -> Tensor:
        """2 |P and T| / (|P| + |T|) (Dice 1945); 1 where both are empty, 0 where one is."""
        total = self.predicted + self.target
        return torch.where(total > 0, 2 * self.overlap / total.where(total > 0, 1), 1.0)

    def scores(self) -> dict[str, Tensor]:
        """Every metric of masks."""
        return {"dice": self.dice(), "dice_background": self.complements().dice()}


def mask_areas(prediction: Tensor, target: Tensor | PooledTarget) -> MaskAreas:
    """Areas [..., images] of masks [..., images, h, w] and [images, H, W] in {0, 1}."""
    mask, pooled = aligned(prediction, target)
    overlap = (mask * pooled.mean).sum((-2, -1))
    return MaskAreas(mask.sum((-2, -1)), pooled.mean.sum((-2, -1)), overlap, mask.shape[-2] * mask.shape[-1])


def areas_at_thresholds(maps: Tensor, target: PooledTarget, thresholds: Sequence[float]) -> MaskAreas:
    """Areas [thresholds, ..., images] of the masks maps > threshold, of maps [..., images, h, w].

    Each value is counted once, by the number of thresholds below it, whatever that number.

    Args:
        thresholds: in increasing order.
    """
    values = upsampled(maps.nan_to_num(nan=-torch.inf), grid_of(target.mean)).flatten(-2)
    means = target.mean.flatten(-2)
    bounds = torch.tensor(thresholds, dtype=values.dtype, device=values.device)
    below = torch.bucketize(values.contiguous(), bounds)  # thresholds below each value

    def above(weights: Tensor) -> Tensor:
        """Sums of weights [..., n] over the values above each threshold, [thresholds, ...]."""
        sums = weights.new_zeros((*below.shape[:-1], len(bounds) + 1)).scatter_add_(-1, below, weights)
        return sums.flip(-1).cumsum(-1).flip(-1)[..., 1:].movedim(-1, 0)

    predicted, overlap = above(torch.ones_like(means).expand_as(below)), above(means.expand_as(below))
    return MaskAreas(predicted, means.sum(-1), overlap, means.shape[-1])


def dice(prediction: Tensor, target: Tensor | PooledTarget) -> Tensor:
    """`MaskAreas.dice` of masks [..., images, h, w] and [images, H, W] in {0, 1}."""
    return mask_areas(prediction, target).dice()


def log_odds(outputs: Tensor) -> Tensor:
    """Two logits (background, foreground) [..., 2, h, w] -> log odds of foreground [..., h, w]."""
    background, foreground = outputs.unbind(-3)
    return foreground - background


def cross_entropy(outputs: Tensor, planes: Tensor) -> Tensor:
    """Cross entropy of two logits [..., 2, h, w] against each token's foreground fraction [..., 1, h, w] -> [...].

    It is the paper's mean over pixels after nearest-neighbour upsampling, since all pixels of a token share its logits.
    """
    odds = log_odds(outputs)
    return (F.softplus(odds) - planes[..., 0, :, :] * odds).mean((-2, -1))


@dataclass(frozen=True)
class Binary(Property):
    """A mask: every label above 0 is foreground."""

    kind: ClassVar[str] = "binary"
    flat: ClassVar[tuple[str, str]] = (
        "no foreground pixel, or no background",
        ", so their Dice is left out of all scores",
    )

    @property
    def binary(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return 2

    @property
    def regressed(self) -> int:
        return 1

    @property
    def metrics(self) -> tuple[str, ...]:
        return "dice", "dice_background"

    def target(self, labels: Tensor) -> Tensor:
        return (labels > 0).float()

    def loss(self, outputs: Tensor, planes: Tensor) -> Tensor:
        return cross_entropy(outputs, planes)

    def coding(self, standardisation: Standardisation) -> tuple[list[float], list[float]]:
        return [SLOPE], [-SLOPE / 2]

    def from_regressed(self, maps: Tensor) -> Tensor:
        """Log odds as two logits."""
        return torch.cat([-maps / 2, maps / 2], -3)

    def decode(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        return log_odds(outputs).sigmoid()

    def differentiable(self, outputs: Tensor) -> Tensor:
        return log_odds(outputs).sigmoid().unsqueeze(-3)

    def constant(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        return planes[0]

    def prepared(
        self, target: Tensor, standardisation: Standardisation, grids: Iterable[Grid]
    ) -> dict[Grid, PooledTarget]:
        return {grid: pool_target(target, grid) for grid in grids}

    def scores(
        self, prediction: Tensor, prepared: PooledTarget, thresholds: Sequence[float] = ()
    ) -> Mapping[str, Tensor]:
        cuts = torch.tensor(thresholds, device=prediction.device)[:, None, None, None]
        return mask_areas(prediction > cuts, prepared).scores()

    def picture(self, maps: np.ndarray, label: np.ndarray) -> Picture:
        return Picture(maps, "gray")

"""Masks at the resolution of an activation, and prototypes as masked means (Bonechi et al. 2024, Diff-Props)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diffprobe.precision import float32_products, to_float64


@dataclass(frozen=True)
class MaskResizing:
    """How masks are resized to the grid of an activation: bilinear, corners not aligned.

    Attributes:
        hard: a cell weighs 1 where at least half of it belongs to the object, else 0.
        antialias: every pixel counts. Without it, from 512 to 16 pixels, a cell depends on 4 of its 1024 pixels.
    """

    hard: bool = False
    antialias: bool = True


def resize_masks(masks: Tensor, grid: tuple[int, int], resizing: MaskResizing) -> Tensor:
    """Masks [objects, H, W], bool or in [0, 1], as weights [objects, h, w], float32 in [0, 1]."""
    weights = F.interpolate(
        masks[:, None].float(), grid, mode="bilinear", align_corners=False, antialias=resizing.antialias
    )[:, 0]
    return (weights >= 0.5).float() if resizing.hard else weights.clamp(0, 1)


def masked_means(activation: Tensor, weights: Tensor) -> Tensor:
    """sum(F w) / sum(w) of an activation F [channels, h, w] for the weights w [objects, h, w] of every object.

    Returns:
        [objects, channels], float32, summed in float64; NaN for objects without weight, which have vanished.
    """
    flat = to_float64(weights.flatten(1).to(activation.device))
    with float32_products():
        sums = flat @ to_float64(activation.flatten(1)).T
    return (sums / flat.sum(1, keepdim=True)).float()

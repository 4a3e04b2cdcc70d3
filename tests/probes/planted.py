"""Synthetic activations in which the answer is known."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.activations.activations import Activations
from diffprobe.backbone.layers import Layer
from diffprobe.properties.tokens import Grid, token_means

SHALLOW, DEEP = "down_blocks.0.attn1.to_out.0", "up_blocks.3.attn1.to_out.0"
TELLING_CHANNEL = 3


def layer(name: str, channels: int, size: int) -> Layer:
    return Layer(name=name, kind="self_attention", stage="encoder", channels=channels, height=size, width=size)


def label_maps(images: int, size: int = 16, seed: int = 0) -> dict[str, Tensor]:
    """Smooth random maps [images, size, size]; saliency is where depth is large, shading is unrelated to both."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, images, 1, 4, 4, generator=generator)
    depth, shading = (F.interpolate(maps, (size, size), mode="bilinear")[:, 0] for maps in coarse)
    return {"saliency": (depth > 0.3).float(), "depth": 5 + 3 * depth, "shading": shading}


def noise(images: int, steps: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32) -> Activations:
    """Two layers of Gaussian noise: 6 channels on 8x8 tokens, 5 channels on 4x4 tokens."""
    generator = torch.Generator().manual_seed(seed)
    layers = [layer(SHALLOW, 6, 8), layer(DEEP, 5, 4)]
    return Activations(
        layers=layers,
        steps=list(range(steps)),
        timesteps=[900.0 - 100 * step for step in range(steps)],
        names=[f"image_{row}" for row in range(images)],
        values={
            item.name: torch.randn(steps, images, item.channels, item.height, item.width, generator=generator).to(dtype)
            for item in layers
        },
    )


def planted(images: int, targets: dict[str, Tensor], *, steps: int = 3, first_step: int = 1) -> Activations:
    """Noise, but channel 3 of the deep layer tells the depth from `first_step` on (and a constant helps the cut)."""
    activations = noise(images, steps)
    depth = F.avg_pool2d(targets["depth"], targets["depth"].shape[-1] // 4)
    values = activations.values[DEEP]
    values[first_step:] *= 0.05
    values[first_step:, :, TELLING_CHANNEL] = 8 * (depth - 5) / 3
    values[first_step:, :, 4] = 1
    return activations


def token_targets(maps: torch.Tensor, grids: Iterable[Grid]) -> dict[Grid, torch.Tensor]:
    """Mean target of each token for each grid (h, w): {grid: [images, 1, h, w]}, from target maps [images, H, W]."""
    return {grid: token_means(maps, grid)[:, None] for grid in grids}

"""Images as image models take them: at eight bits, as a PNG file would hold them."""

from __future__ import annotations

import torch
from torch import Tensor


def eight_bit(images: Tensor) -> Tensor:
    """[..., height, width] in [0, 1] -> the nearest of 256 levels, uint8, on the CPU."""
    return (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def trial_picture(size: int = 64) -> Tensor:
    """[1, 3, size, size] of noise, always the same: image models are tried on it before there are images."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))

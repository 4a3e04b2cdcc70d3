"""Pictures of the page: images, outlines of masks on them and maps in colours, enlarged to see every pixel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIDE = 384  # pixels of every picture: six times pocket's
LINE = 3  # pixels, of an outline; black outside and white inside, so that it shows on any colour


def picture(image: Tensor) -> np.ndarray:
    """An image [3, H, W] in [0, 1] as [SIDE, SIDE, 3] in 0 to 255."""
    return _eight_bit(_enlarged(image))


def draw_outline(image: Tensor, mask: Tensor) -> np.ndarray:
    """An image [3, H, W] with the outline of a mask [h, w] in {0, 1}, as [SIDE, SIDE, 3]."""
    inside = _enlarged(mask[None].float())
    outer = functional.max_pool2d(inside, 2 * LINE + 1, 1, LINE) > inside
    inner = -functional.max_pool2d(-inside, 2 * LINE + 1, 1, LINE) < inside
    return _eight_bit(_enlarged(image).masked_fill(outer, 0.0).masked_fill(inner, 1.0))


def apply_colours(values: Tensor, low: float, high: float, colours: str) -> np.ndarray:
    """A map [h, w] in a colour map of matplotlib from low to high, as [SIDE, SIDE, 3]."""
    from matplotlib import colormaps

    shares = (values - low) / ((high - low) or 1.0)
    found = colormaps[colours](shares.clamp(0, 1).numpy())[..., :3]
    return _eight_bit(_enlarged(torch.from_numpy(found).movedim(-1, 0)))


def _enlarged(image: Tensor) -> Tensor:
    return functional.interpolate(image[None], (SIDE, SIDE), mode="nearest")[0]


def _eight_bit(image: Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()

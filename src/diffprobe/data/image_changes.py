"""Images changed together with their masks: rotation, flip, scale, padding, crop and shift.

A change is a [2, 3] matrix from places in the changed square to places in the original one; x runs right and y down,
both from -1 to 1. It is applied to the square that the network sees and to masks of any shape.
"""

from __future__ import annotations

from math import ceil, cos, radians, sin
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.data.objects import AnnotatedObject, ObjectImages
from diffprobe.errors import UserError
from diffprobe.ranges import Number

BACKGROUND = 0.5  # mid grey, which is 0 to a VAE, where there was no picture


def rotation(degrees: float) -> Tensor:
    """Counter-clockwise, about the centre."""
    c, s = cos(radians(degrees)), sin(radians(degrees))
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0]])


def flip(strength: float) -> Tensor:
    """Left and right exchanged, whatever the strength."""
    return torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def scale(factor: float) -> Tensor:
    """Enlarged, about the centre."""
    return torch.tensor([[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]])


def padding(share: float) -> Tensor:
    """A border of this share of the side on every side, then resized to the former size."""
    return scale(1 / (1 + 2 * share))


def crop(share: float) -> Tensor:
    """The centre, of this share of the side, enlarged to the former size."""
    return scale(1 / share)


def shift(share: float) -> Tensor:
    """To the right and down, each by this share of the side."""
    return torch.tensor([[1.0, 0.0, -2 * share], [0.0, 1.0, -2 * share]])


CHANGES = {"rotation": rotation, "flip": flip, "scale": scale, "padding": padding, "crop": crop, "shift": shift}
# Something of the picture is still there, and there is only one flip
STRENGTHS = {
    "rotation": Number(-360, 360),
    "flip": Number(1, 1),
    "scale": Number(0.1, 10),
    "padding": Number(0, 4),
    "crop": Number(0.1, 1),
    "shift": Number(-2, 2),
}
CHANGE_WORDS = {"padding": "padding of", "crop": "crop to"}


def check_strength(change: str, strength: float, where: str = "") -> None:
    """Raises UserError, which begins with `where`, for a strength that is out of its change's range."""
    limits = STRENGTHS[change]
    if not limits.contains(strength):
        raise UserError(f"{where}{CHANGE_WORDS.get(change, f'{change} by')} {strength:g}: must be {limits.words}")


class ChangedImages(ObjectImages):
    """Changed copies of images with objects. Names, objects and their areas stay those of the original.

    Args:
        change: one of `CHANGES`.
        strength: degrees, factor or share.

    Raises:
        UserError: there is no such change, or its strength is out of range.
    """

    def __init__(self, images: ObjectImages, change: str, strength: float = 1.0) -> None:
        if change not in CHANGES:
            raise UserError(f"no change {change!r} of images; choose one of {', '.join(CHANGES)}")
        check_strength(change, strength)
        self.images, self.change, self.strength = images, change, strength
        self.matrix = CHANGES[change](strength)
        self.kind, self.names, self.captions = images.kind, images.names, images.captions
        self.sequences, self.frames = images.sequences, images.frames

    def objects(self, row: int) -> list[AnnotatedObject]:
        return self.images.objects(row)

    def picture(self, row: int, size: int) -> Tensor:
        return change_picture(self.images.picture(row, size), self.matrix)

    def masks(self, row: int) -> Tensor:
        """[objects, height, width], bool; all False for an object that the change pushes out of the picture."""
        return change_masks(self.images.masks(row), self.matrix)

    def record(self, row: int) -> dict[str, Any]:
        return {**self.images.record(row), "change": self.change, "strength": self.strength}

    def vanished(self) -> list[str]:
        """The names of the objects that are pushed out of the picture."""
        return [
            item.name
            for row in range(len(self))
            for item, mask in zip(self.objects(row), self.masks(row), strict=True)
            if not mask.any()
        ]


def change_picture(picture: Tensor, matrix: Tensor) -> Tensor:
    """[3, height, width] -> the same shape, bilinear, antialiased, mid grey where there was nothing."""
    if torch.equal(matrix, flip(1)):
        return picture.flip(-1)  # the same without rounding
    height, width = picture.shape[-2:]
    samples = max(1, ceil(float(torch.linalg.matrix_norm(matrix[:, :2], 2)) - 1e-4))
    grid = _grid(matrix, height * samples, width * samples)
    changed = functional.grid_sample(picture[None] - BACKGROUND, grid, "bilinear", "zeros", align_corners=False)
    return (functional.avg_pool2d(changed, samples)[0] + BACKGROUND).clamp(0, 1)


def change_masks(masks: Tensor, matrix: Tensor) -> Tensor:
    """[objects, height, width] bool -> the same shape, by nearest neighbours, empty where there was nothing."""
    if torch.equal(matrix, flip(1)):
        return masks.flip(-1)
    grid = _grid(matrix, *masks.shape[-2:])
    return functional.grid_sample(masks[None].float(), grid, "nearest", "zeros", align_corners=False)[0] > 0.5


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    return functional.affine_grid(matrix[None], [1, 1, height, width], align_corners=False)

"""Target maps of interventions: label maps that are moved, rotated and scaled, or a mask from a file.

And how much of its prompt a picture of the pocket world shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import cos, radians, sin
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.errors import UserError
from diffprobe.labels.map_files import read_plane
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.ranges import Number
from diffprobe.user_files import KINDS as KINDS_OF_PICTURE

if TYPE_CHECKING:
    from torch import nn

BATCH = 64
SAME_SHARE = 0.02  # of the map's foreground; shifts count as equally good if what they keep of it differs by less
OBJECT = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


@torch.no_grad()
def prompt_agreement(images: Tensor, prompts: Sequence[str], classifier: nn.Module) -> Tensor:
    """The share of the objects that a prompt names, by colour and shape, that the pocket classifier sees somewhere.

    Images [images, 3, 64, 64] in [0, 1] -> [images]; NaN where the prompt names no object of that world.
    """
    colour_names, shape_names, seen = (*COLOURS, ""), (*SHAPES, ""), []  # '': no object
    for batch in images.split(BATCH):
        colours, shapes = (logits.argmax(-1).tolist() for logits in classifier(batch.float().cpu()))
        for image in zip(colours, shapes, strict=True):
            seen.append(Counter((colour_names[c], shape_names[s]) for c, s in zip(*image, strict=True)))
    named = [Counter(OBJECT.findall(prompt)) for prompt in prompts]
    shares = [
        (wanted & there).total() / wanted.total() if wanted else float("nan")
        for wanted, there in zip(named, seen, strict=True)
    ]
    return torch.tensor(shares)


@dataclass(frozen=True)
class Move:
    """What is done to a map [height, width] as a whole.

    `right` and `down` in pixels; then, about the centre of its foreground (of the picture for a quantity), a rotation
    in degrees against the clock, and a scale.
    """

    right: int = 0
    down: int = 0
    degrees: float = 0.0
    scale: float = 1.0

    def share(self, part: float) -> Move:
        """The move as far as `part` (0 to 1) of the way."""
        return Move(round(self.right * part), round(self.down * part), self.degrees * part, 1 + (self.scale - 1) * part)


def move(values: Tensor, how: Move, *, mask: bool) -> Tensor:
    """A map [height, width] after a move, in its own units.

    A mask stays in {0, 1}, with background where nothing is known; a quantity goes on as at its border.
    """
    moved = _rotated_and_scaled(values, how, mask) if (how.degrees, how.scale) != (0.0, 1.0) else values
    return _shifted(moved, how.right, how.down, mask)


def draw_moves(
    masks: Sequence[Tensor], kind: str, low: float, high: float, seed: int, names: Sequence[str]
) -> list[Move]:
    """A random move for each mask [height, width], the same for the same name and seed.

    Args:
        kind: 'translation': of low to high pixels (high excluded) along both axes, in that of the four diagonal
            directions that keeps most of the mask in the picture, drawn where several do; 'rotation': by low to high
            degrees, either way; 'scale': by a factor of low to high.
    """
    moves = []
    for mask, name in zip(masks, names, strict=True):
        random = np.random.default_rng([seed, *name.encode()])
        if kind == "translation":
            moves.append(_draw_shift(mask, low, high, random))
        elif kind == "rotation":
            moves.append(Move(degrees=float(random.uniform(low, high) * random.choice([-1, 1]))))
        else:
            moves.append(Move(scale=float(random.uniform(low, high))))
    return moves


def check_range(kind: str, low: float, high: float, size: int) -> None:
    """Raises UserError for a move of a map of size x size pixels that leaves nothing of it, or is no move at all."""
    if not low < high or (kind == "scale" and low <= 0):
        raise UserError(f"a {kind} of {low:g} to {high:g}: give a smaller number and a larger one, factors above 0")
    if kind == "translation" and round(low) >= round(high):
        raise UserError(f"a translation of {low:g} to {high:g}: gives no whole number of pixels")
    limits = {"translation": Number(0, size), "rotation": Number(-360, 360), "scale": Number(0.1, 10)}[kind]
    for end in (low, high):
        limits.checked(end, f"{kind} of maps of {size} pixels")


def read_mask(path: str | Path, size: int) -> Tensor:
    """A mask [size, size] in {0, 1} from a picture: foreground where it is lighter than half.

    Raises:
        UserError: it cannot be read, is no square, is in colour or transparent, or is all foreground or all background.
    """
    from PIL import Image

    values = read_plane(path, "the mask", KINDS_OF_PICTURE)
    if values.shape[0] != values.shape[1]:
        raise UserError(
            f"the mask {path} is {values.shape[1]} x {values.shape[0]} pixels, and the images to be edited are square"
        )
    lightest = 1 if values.dtype == bool else 255 if values.dtype == np.uint8 else 65535
    shares = Image.fromarray((values / lightest).astype(np.float32)).resize((size, size), Image.Resampling.BOX)
    mask = torch.from_numpy((np.asarray(shares) > 0.5).astype(np.float32))
    if mask.min() == mask.max():
        raise UserError(
            f"the mask {path} is all {'white' if mask.max() else 'black'}; objects shall be where it is white"
        )
    return mask


def _draw_shift(mask: Tensor, low: float, high: float, random: np.random.Generator) -> Move:
    right, down = (int(random.integers(round(low), round(high))) for _ in range(2))
    moves = [Move(x * right, y * down) for x, y in product((1, -1), repeat=2)]
    inside = [float(move(mask, each, mask=True).sum()) for each in moves]
    best = max(inside) - SAME_SHARE * float(mask.sum())
    good = [each for each, share in zip(moves, inside, strict=True) if share >= best]
    return good[int(random.integers(len(good)))]


def _shifted(values: Tensor, right: int, down: int, mask: bool) -> Tensor:
    height, width = values.shape
    rows = torch.arange(height, device=values.device) - down
    columns = torch.arange(width, device=values.device) - right
    shifted = values[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)]
    if not mask:
        return shifted
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    return shifted * inside


def _rotated_and_scaled(values: Tensor, how: Move, mask: bool) -> Tensor:
    """Each pixel takes the value from where it comes from."""
    height, width = values.shape
    y, x = (height - 1) / 2, (width - 1) / 2
    if mask and values.any():
        y, x = values.nonzero().double().mean(0).tolist()
    rows, columns = torch.meshgrid(torch.arange(height) - y, torch.arange(width) - x, indexing="ij")
    angle = radians(how.degrees)
    from_x = (cos(angle) * columns - sin(angle) * rows) / how.scale + x
    from_y = (sin(angle) * columns + cos(angle) * rows) / how.scale + y
    grid = torch.stack([from_x * 2 / (width - 1) - 1, from_y * 2 / (height - 1) - 1], -1).to(values)[None]
    mode, padding = ("nearest", "zeros") if mask else ("bilinear", "border")
    values = values[None, None]
    return functional.grid_sample(values, grid, mode=mode, padding_mode=padding, align_corners=True)[0, 0]

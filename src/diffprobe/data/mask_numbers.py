"""Masks of VOC and DAVIS: pictures whose pixels hold the number of an object or of a class.

The number is the pixel's place in a palette. Editors and converters re-order palettes, so that the colours stay and the
numbers do not. A palette is therefore believed only where it gives each number the colour of VOC's colour map (which
DAVIS uses too), or its own grey. If the colours are those of the map, but in another order, the colours say the
numbers; that is also how masks saved in RGB are read. A palette that has one colour for several of the numbers in use
(black, where a program filled it up) was not re-ordered, and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffprobe.errors import UserError
from diffprobe.user_files import opened_picture

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

IGNORED = 255  # the border that belongs to no object
OPAQUE = 255
WANTED = "save it with VOC's palette, or as 8-bit grey values that are the numbers themselves"


def _colour_map() -> np.ndarray:
    """[256, 3] uint8, the colours of the numbers, as in VOC's development kit (VOClabelcolormap.m).

    Bit 0 of a number is the highest bit of red, bit 1 of green, bit 2 of blue, bit 3 the next of red, and so on.
    """
    numbers = np.arange(256)
    channels = [sum(((numbers >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return np.stack(channels, 1).astype(np.uint8)


COLOURS = _colour_map()
GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
# What Pillow, OpenCV and others make of the colours of objects, classes and borders in turning a mask grey (ITU-R 601).
LUMA = np.round(COLOURS[[*range(1, 21), IGNORED]] @ np.array([0.299, 0.587, 0.114])).astype(int)


def read_numbers(path: Path) -> np.ndarray:
    """[height, width] uint8, the number of each pixel.

    Raises:
        UserError: the file is missing, broken, or of another kind, or its colours are not those of numbers.
    """
    if not path.exists():
        raise UserError(f"there is no mask {path}")
    with opened_picture(path, "the mask") as (picture, _):
        picture.load()
        return _numbers(picture, path)


def _numbers(picture: Picture, path: Path) -> np.ndarray:
    if picture.mode == "L":
        return np.asarray(picture)
    if picture.mode == "P":
        return _by_palette(picture, path)
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (OPAQUE, OPAQUE):
        picture = picture.convert("RGB")
    if picture.mode == "RGB":
        return _by_colour(np.asarray(picture), path)
    raise UserError(f"the mask {path} has pixels of kind {picture.mode}; {WANTED}")


def _by_palette(picture: Picture, path: Path) -> np.ndarray:
    places = np.asarray(picture)
    palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(places)
    if used[-1] >= len(palette):
        raise UserError(f"the mask {path} has pixels of the number {used[-1]}, which its palette lacks; {WANTED}")
    found = palette[used]
    as_in_map = ((found == COLOURS[used]) | (found == GREYS[used])).all()
    # Whatever re-orders a palette merges equal colours; one that gives two numbers the same colour tells nothing
    if as_in_map or len(np.unique(found, axis=0)) < len(used):
        return places
    table = np.zeros(256, np.uint8)
    table[used] = _numbers_of(_packed(found), path, "palette is not VOC's: it")
    return table[places]


def _by_colour(pixels: np.ndarray, path: Path) -> np.ndarray:
    """[height, width, 3] uint8 -> [height, width] uint8."""
    colours, places = np.unique(_packed(pixels), return_inverse=True)
    return _numbers_of(colours, path, "pixels are colours, and it")[places.reshape(pixels.shape[:2])]


def _packed(colours: np.ndarray) -> np.ndarray:
    """[..., 3] uint8 -> [...], one whole number a colour."""
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _numbers_of(colours: np.ndarray, path: Path, said: str) -> np.ndarray:
    """[colours] as `_packed` gives them -> [colours] uint8, their numbers by VOC's colour map."""
    known = _packed(COLOURS)
    order = np.argsort(known)
    numbers = order[np.searchsorted(known, colours, sorter=order).clip(max=255)]
    unknown = colours[known[numbers] != colours]
    if len(unknown):
        shown = tuple(int(unknown[0]).to_bytes(3, "big"))
        raise UserError(f"the mask {path}: its {said} has the colour {shown}, which VOC's colour map lacks; {WANTED}")
    return numbers.astype(np.uint8)


def check_not_luma(objects: np.ndarray, classes: np.ndarray) -> None:
    """Checks the two masks of an image, [height, width] each.

    Only together do they tell: a class mask of 15 alone may be of persons, or of boats that were turned grey; but the
    first object is number 1, and 1 is not the brightness of any of VOC's colours.

    Raises:
        UserError: all their values are what VOC's colours become when a mask with a palette is turned grey.
    """
    values = np.unique([*np.unique(objects), *np.unique(classes)])
    values = values[values > 0]
    if len(values) and np.isin(values, LUMA).all():
        raise UserError(
            f"its masks have the grey values {', '.join(map(str, values[:5]))}, the brightness of VOC's colours and "
            f"not the numbers they stand for; {WANTED}"
        )


def check_not_ignored(objects: np.ndarray) -> None:
    """Raises UserError if a mask of objects, [height, width], holds nothing but 0 and 255."""
    if (objects == IGNORED).any() and np.isin(objects, (0, IGNORED)).all():
        raise UserError(
            "its mask has only the values 0 and 255, and 255 is ignored: it belongs to no object; number the objects "
            "from 1 (DAVIS 2016 writes one object as 255, DAVIS 2017 numbers them)"
        )

"""From an image file to its pixels: upright, without modes, and told apart by what it shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffprobe.errors import UserError
from diffprobe.fitting import UPRIGHT
from diffprobe.user_files import opened_picture, read_file

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ORIENTATION = 0x0112  # the EXIF tag
BACKGROUND = (255, 255, 255)  # shows through transparent pixels
LARGEST_16_BIT = 65535
STRIP = 2**20  # pixels that are worked on at once, where a whole picture would need several copies


@dataclass(frozen=True)
class DecodedFile:
    """What an image file held when it was first read.

    Attributes:
        sha256: of its bytes.
        pixels: SHA-256 of what it shows: the same for two files of one picture, in whatever format.
        width, height: as it is stored, before it is turned upright.
        orientation: its EXIF orientation, 1 to 8.
    """

    sha256: str
    pixels: str
    width: int
    height: int
    orientation: int


@contextmanager
def open_upright(path: Path, contents: DecodedFile | None = None) -> Iterator[Picture]:
    """The picture upright in mode RGB, or, of 16-bit grey, in mode F with values in [0, 1]; of an animation the first.

    Args:
        contents: what the file held before, where that is known.

    Raises:
        UserError: the file cannot be read, holds pixels of unknown range, or is not any more what it was.
    """
    content = read_file(path, "the image")
    if contents is not None and hashlib.sha256(content).hexdigest() != contents.sha256:
        raise UserError(
            f"the image {path} was changed while it was in use: its contents are not those that this run began with; "
            "run it again"
        )
    with opened_picture(path, "the image", content=content) as (picture, _):
        _turn_upright(picture)
        yield _without_mode(picture)


def inspect_image_file(path: Path) -> DecodedFile:
    """Decodes all of an image file.

    Raises:
        UserError: as `open_upright`.
    """
    content = read_file(path, "the image")
    with opened_picture(path, "the image", content=content) as (picture, stored):
        orientation = _turn_upright(picture)
        shown = _without_mode(picture)
        pixels = hashlib.sha256(repr((shown.mode, shown.size)).encode())
        for _, strip in _strips(shown):
            pixels.update(strip.tobytes())
    return DecodedFile(hashlib.sha256(content).hexdigest(), pixels.hexdigest(), *stored, orientation)


def orientation_of(picture: Picture) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 where there is none or nonsense."""
    found = picture.getexif().get(ORIENTATION, UPRIGHT)
    return int(found) if found in range(1, 9) else UPRIGHT


def _turn_upright(picture: Picture) -> int:
    """Turns the picture as its EXIF data say, in place, and returns the orientation that it had."""
    from PIL import ImageOps

    picture.load()  # what comes behind the pixels in the file may turn it too
    orientation = orientation_of(picture)
    if orientation != UPRIGHT:
        ImageOps.exif_transpose(picture, in_place=True)
    return orientation


def _without_mode(picture: Picture) -> Picture:
    from PIL import Image

    if picture.mode.startswith("I"):
        return _grey_of_16_bits(picture)
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, their range is unknown; save it as 8 or 16 bits")
    if picture.has_transparency_data:
        canvas = Image.new("RGB", picture.size)
        for top, strip in _strips(picture):
            white = Image.new("RGBA", strip.size, (*BACKGROUND, 255))
            white.alpha_composite(strip.convert("RGBA"))
            canvas.paste(white.convert("RGB"), (0, top))
        return canvas
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _grey_of_16_bits(picture: Picture) -> Picture:
    from PIL import Image

    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]
    if low < 0 or high > LARGEST_16_BIT:
        raise ValueError("its grey values go beyond 16 bits, their range is unknown; save it as 8 or 16 bits")
    shares = (np.arange(LARGEST_16_BIT + 1) / LARGEST_16_BIT).astype(np.float32)
    clear = picture.info.get("transparency")
    if isinstance(clear, int) and 0 <= clear <= LARGEST_16_BIT:
        shares[clear] = 1
    return Image.fromarray(shares[np.asarray(picture)])


def _strips(picture: Picture) -> Iterator[tuple[int, Picture]]:
    """(top row, strip) from the top to the bottom of a picture."""
    width, height = picture.size
    rows = max(1, STRIP // max(1, width))
    for top in range(0, height, rows):
        yield top, picture.crop((0, top, width, min(top + rows, height)))

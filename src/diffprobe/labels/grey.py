"""One plane of numbers from a picture: what is stored as colour or beside transparency is no map by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffprobe.user_files import opened_picture

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

OPAQUE = 255


def read_plane(path: str | Path, what: str, kinds: Sequence[str] = ("PNG",)) -> np.ndarray:
    """[height, width]: bool, uint8, or of 16 bits an integer type, from a grey picture.

    Colour will do if all its channels are equal, transparency if there is none to be seen. Lossy formats are not among
    the kinds, since their zeros are not zero.

    Raises:
        UserError: the file cannot be read, is of another kind, or has colours or transparent pixels.
    """
    with opened_picture(path, what, kinds=kinds) as (picture, _):
        cut_to_8_bits = picture.mode != "L" and any(";16B" in str(tile[3]) for tile in picture.tile)
        picture.load()
        if picture.mode == "1":
            return np.array(picture)
        if picture.mode.startswith("I"):
            return _of_16_bits(picture)
        if cut_to_8_bits:
            raise ValueError("it is colour of 16 bits, which would be cut to 8; save it as grey")
        if picture.has_transparency_data:
            _check_opaque(picture)
        if picture.mode in ("L", "LA"):
            return np.array(picture.getchannel("L"))
        return _of_equal_channels(picture)


def _of_16_bits(picture: ImageFile) -> np.ndarray:
    values = np.array(picture)
    if (values == picture.info.get("transparency")).any():
        raise ValueError("it has transparent pixels; save one grey channel alone")
    return values


def _check_opaque(picture: ImageFile) -> None:
    low, _ = picture.convert("RGBA").getchannel("A").getextrema()
    if low != OPAQUE:
        raise ValueError(
            "it has transparent pixels, and whether its map is in its transparency or in its colours cannot be told; "
            "save one grey channel alone"
        )


def _of_equal_channels(picture: ImageFile) -> np.ndarray:
    channels = np.asarray(picture.convert("RGB"))
    if (channels != channels[..., :1]).any():
        raise ValueError(
            "it is in colour, and colours have no order; save the values themselves, as grey PNG or as .npy"
        )
    return channels[..., 0].copy()

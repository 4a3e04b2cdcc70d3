"""The values of one file of a label map, by the kind of its property."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffprobe.properties import Property
from diffprobe.properties.categorical import NONE, Categorical
from diffprobe.properties.vector import Vector
from diffprobe.user_files import opened_picture, read_array, read_tensor

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

EXTENSIONS = (".npy", ".safetensors", ".png", ".tif", ".tiff")
PICTURES = ("PNG", "TIFF")
LOSSLESS = (  # Pillow's names of codes of TIFF
    *("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd", "lzma"),
    *("group3", "group4", "tiff_ccitt"),
)
_BITS, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # of TIFF 6.0
SHORTEST, LONGEST = 0.5, 1.5  # of unit vectors, which a file may round; shorter ones mean that a pixel has none


def read_map(path: Path, item: Property) -> np.ndarray:
    """A map [height, width], of vectors [height, width, channels]: finite; class numbers with -1 for no class; unit
    vectors with 0 for none.

    Raises:
        UserError: the file cannot be read.
        ValueError: it holds no map of this kind.
    """
    if isinstance(item, Categorical):
        return _classes(path, item)
    return _vectors(path, item) if isinstance(item, Vector) else _quantity(path)


def _quantity(path: Path) -> np.ndarray:
    values = _plane(path, read_plane)
    _check_numbers(values)
    return values


def _classes(path: Path, item: Categorical) -> np.ndarray:
    values = _plane(path, _read_numbers)
    _check_numbers(values)
    numbers = values.astype(np.float64)
    if (numbers != numbers.round()).any():
        raise ValueError("class numbers must be whole, and it has others")
    if item.ignore is not None:
        numbers = np.where(numbers == item.ignore, NONE, numbers)
    wrong = numbers[(numbers < NONE) | (numbers >= len(item.classes))]
    if len(wrong):
        raise ValueError(
            f"it has the class number {wrong.flat[0]:g}, and the {len(item.classes)} classes are numbered from 0 to "
            f"{len(item.classes) - 1}; which number stands for no class says property.ignore"
        )
    return numbers


def _vectors(path: Path, item: Vector) -> np.ndarray:
    if path.suffix in (".npy", ".safetensors"):
        values = _array(path)
    else:
        values = _read_colours(path)
        if item.channels != 3:
            raise ValueError(f"a picture has three channels, and {item.name} has {item.channels}; save it as .npy")
        if item.unit:
            values = values / 127.5 - 1
    if values.ndim == 3 and values.shape[0] == item.channels != values.shape[-1]:
        values = np.moveaxis(values, 0, -1)
    if values.ndim != 3 or values.shape[-1] != item.channels or not values.size:
        raise ValueError(f"it must be [height, width, {item.channels}], and has shape {list(values.shape)}")
    _check_numbers(values)
    return _unit_vectors(values.astype(np.float64)) if item.unit else values


def _unit_vectors(values: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    there = (lengths > SHORTEST) & (lengths < LONGEST)
    if there.mean() < 0.5:
        raise ValueError(
            f"less than half of its pixels have a vector of length 1 (the middle length is {np.median(lengths):.2g}); "
            "scale them, or set property.unit=false if lengths count"
        )
    return np.where(there, values / np.where(there, lengths, 1), 0)


def _plane(path: Path, read_picture: Callable[[Path, str, Sequence[str]], np.ndarray]) -> np.ndarray:
    """One plane of numbers, [height, width]."""
    values = _array(path) if path.suffix in (".npy", ".safetensors") else read_picture(path, "the map", PICTURES)
    values = values.reshape([side for side in values.shape if side > 1]) if values.ndim > 2 else values
    if values.ndim != 2 or not values.size:
        raise ValueError(f"it must be one plane of numbers, and has shape {values.shape}")
    return values


def _array(path: Path) -> np.ndarray:
    return read_array(path, "the map") if path.suffix == ".npy" else read_tensor(path, "the map")


def _check_numbers(values: np.ndarray) -> None:
    """Raises ValueError for what float32 cannot hold."""
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of its {values.size} values are infinite or not numbers")
    if max(abs(float(values.max())), abs(float(values.min()))) > float(np.finfo(np.float32).max):
        raise ValueError("it has values beyond 3.4e38, the range of float32; scale them down, only ranks count")


def read_plane(path: str | Path, what: str, kinds: Sequence[str] = ("PNG",)) -> np.ndarray:
    """The values of a grey picture, [height, width]: bool, uint8, an integer type of 16 bits or more, or float32.

    Colour may be there if all channels are equal, transparency if all is opaque. Lossy formats are not among the
    kinds, since their zeros are not zero.

    Raises:
        UserError: the file cannot be read, is of another kind, or has colours or transparent pixels.
    """
    with opened_picture(path, what, kinds=kinds) as (picture, _):
        _check_one_lossless(picture)
        cut_to_8_bits = _has_16_bits(picture)
        picture.load()
        if picture.mode == "1":
            return np.array(picture)
        if picture.mode == "F" or picture.mode.startswith("I"):
            values = _as_stored(np.array(picture), picture)
            if (values == picture.info.get("transparency")).any():
                raise ValueError("it has transparent pixels; save one grey channel alone")
            return values
        if cut_to_8_bits:
            raise ValueError("it is colour of 16 bits, which would be cut to 8; save it as grey")
        if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema()[0] != 255:
            raise ValueError(
                "it has transparent pixels, and whether its map is in its transparency or in its colours cannot be "
                "told; save one grey channel alone"
            )
        if picture.mode in ("L", "LA"):
            return _as_stored(np.array(picture.getchannel("L")), picture)
        channels = np.asarray(picture.convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise ValueError(
                "it is in colour, and colours have no order; save the values themselves, as grey PNG or as .npy"
            )
        return channels[..., 0].copy()


def _as_stored(values: np.ndarray, picture: ImageFile) -> np.ndarray:
    """Numbers of a TIFF file with the sign that it says: Pillow takes 32 bits for signed, and 8 bits for unsigned."""
    tags: dict[int, Any] = dict(getattr(picture, "tag_v2", {}))
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    if values.dtype == np.int32 and picture.format == "TIFF" and not signed and tags.get(_BITS, (1,))[0] == 32:
        return values.view(np.uint32)
    return values.view(np.int8) if values.dtype == np.uint8 and signed else values


def _has_16_bits(picture: ImageFile) -> bool:
    """Whether a picture that is not decoded yet has channels of 16 bits, which Pillow would cut to 8."""
    found: list[Any] = [tile[3] for tile in picture.tile]
    raw_modes = (str(each[0] if isinstance(each, tuple) else each) for each in found)  # of TIFF with offsets after it
    return picture.mode != "L" and any(";16" in mode for mode in raw_modes)


def _read_numbers(path: Path, what: str, kinds: Sequence[str]) -> np.ndarray:
    """The numbers of a palette's colours, or as `read_plane`."""
    with opened_picture(path, what, kinds=kinds) as (picture, _):
        _check_one_lossless(picture)
        if picture.mode == "P":
            return np.array(picture)
    return read_plane(path, what, kinds)


def _check_one_lossless(picture: ImageFile) -> None:
    """Raises ValueError for a TIFF that holds JPEG or another lossy code, and for a file of several pictures."""
    pictures = getattr(picture, "n_frames", 1)
    if pictures > 1:
        raise ValueError(f"it holds {pictures} pictures; save each as a file of its own")
    code = str(picture.info.get("compression", "raw"))
    if picture.format == "TIFF" and code not in LOSSLESS:
        raise ValueError(
            f"it is compressed as {code}, which changes its numbers; save it as PNG, or with deflate or lzw"
        )


def _read_colours(path: Path) -> np.ndarray:
    """Red, green and blue of a picture of 8 bits, [height, width, 3], uint8."""
    with opened_picture(path, "the map", kinds=PICTURES) as (picture, _):
        _check_one_lossless(picture)
        deep = _has_16_bits(picture)
        if picture.has_transparency_data:
            raise ValueError("it has an alpha channel, and vectors have none; save red, green and blue alone")
        if picture.mode != "RGB" or deep:
            raise ValueError("vectors as a picture are red, green and blue of 8 bits each; save others as .npy")
        return np.array(picture)

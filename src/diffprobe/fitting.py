"""How a picture becomes the square that a network sees, and how a map made for it follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FITS = ("stretch", "crop")
UPRIGHT = 1  # the EXIF orientation that turns nothing
Box = tuple[float, float, float, float]  # left, top, right, bottom
# What is done to rows and columns to turn a picture upright, by its EXIF orientation (EXIF 2.3, tag 0x0112).
_TURNS = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).swapaxes(0, 1),
    8: np.rot90,
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class Geometry:
    """What happens to a picture on its way into the square.

    Attributes:
        width, height: as it is stored in its file, in pixels, before it is turned.
        orientation: its EXIF orientation, 1 to 8; the picture is turned upright by it.
        fit: 'stretch' to the square, or 'crop' to the largest square in the middle first.
    """

    width: int
    height: int
    orientation: int = UPRIGHT
    fit: str = "stretch"


def visible_box(width: int, height: int, fit: str) -> Box:
    """The part of an upright picture that becomes the square, in its pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side) if fit == "crop" else (0, 0, width, height)


def fit_map(values: np.ndarray, geometry: Geometry | None, size: int) -> tuple[np.ndarray, Box]:
    """A map [height, width] or [height, width, channels] upright, and the part of it that the square of `size` pixels
    shows.

    A map of the stored file's proportions is turned and cropped as the picture is; a square map is of the fitted
    picture, and is taken as it is.

    Args:
        geometry: of the map's picture; None for a picture that was square from the beginning.

    Raises:
        ValueError: its proportions are neither, or it cannot be told which.
    """
    height, width = values.shape[:2]
    square = _same_proportions(width, height, 1, 1)
    whole = (0, 0, width, height)
    if geometry is None:
        if not square:
            raise ValueError(f"it is {width} x {height} pixels, and its image is square")
        return values, whole
    stored = f"{geometry.width} x {geometry.height}"
    of_file = _same_proportions(width, height, geometry.width, geometry.height)
    if of_file and square and geometry.orientation != UPRIGHT:
        # The file is square as well: only the size can tell whether the map still has to be turned
        of_file = (width, height) == (geometry.width, geometry.height)
        if of_file == ((width, height) == (size, size)):
            raise ValueError(
                f"it is {width} x {height} pixels, and the EXIF data of its image ({stored}) turn that: whether the "
                "map is turned already cannot be told. Save image and map upright"
            )
    if of_file:
        return _turned_with_picture(values, geometry)
    if square:
        return values, whole
    turned = " and is turned by its EXIF data" if geometry.orientation in _SIDEWAYS else ""
    raise ValueError(
        f"it is {width} x {height} pixels, which are neither the proportions of its image's file, which is {stored}"
        f"{turned}, nor square; make it of the file as it is stored, or of the square that the network sees"
    )


def _turned_with_picture(values: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Box]:
    """Turned, with the part that the picture shows, in pixels of the map, which may be of another resolution."""
    upright = _TURNS[geometry.orientation](values) if geometry.orientation in _TURNS else values
    sides = geometry.width, geometry.height
    width, height = sides[::-1] if geometry.orientation in _SIDEWAYS else sides
    left, top, right, bottom = visible_box(width, height, geometry.fit)
    across, down = upright.shape[1] / width, upright.shape[0] / height
    return upright, (left * across, top * down, right * across, bottom * down)


def _same_proportions(width: int, height: int, other_width: int, other_height: int) -> bool:
    """Whether the proportions are the same but for rounding to whole pixels."""
    off = abs(width * other_height - height * other_width)
    return off <= max(other_width, other_height)

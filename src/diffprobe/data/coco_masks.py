"""Masks as COCO writes them: polygons, and run lengths as a list or as a string."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from diffprobe.errors import UserError

CORNERS = 3  # the fewest of a polygon
FAR = 10  # sides of its image that a corner may lie outside of it; pycocotools walks along every edge, however long
SHOWN_DIGITS = 12
LONGEST_RUN = 7  # characters: more bits than any image has pixels


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """[height, width] bool.

    Raises:
        UserError: there is none, it is not one, it is of another size, or it lies far outside of its image.
    """
    if not segmentation:
        raise UserError("its annotation has no segmentation")
    if isinstance(segmentation, dict):
        return _from_run_lengths(segmentation, height, width)
    return _from_polygons(segmentation, height, width)


def _from_polygons(polygons: Any, height: int, width: int) -> np.ndarray:
    from pycocotools import mask

    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise UserError("its segmentation is neither polygons, [[x, y, x, y, ...], ...], nor run lengths")
    for polygon in polygons:
        _check_polygon(polygon, height, width)
    corners: Any = [[float(value) for value in polygon] for polygon in polygons]
    # Joined before they are decoded: each would take a mask of its own
    return mask.decode(mask.merge(mask.frPyObjects(corners, height, width))) > 0


def _check_polygon(polygon: list[Any], height: int, width: int) -> None:
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in polygon):
        raise UserError("its segmentation has a polygon that is not a list of numbers [x, y, x, y, ...]")
    if len(polygon) < 2 * CORNERS or len(polygon) % 2:
        raise UserError("its segmentation has a polygon of fewer than three corners, or with half a corner")
    for corner in zip(polygon[::2], polygon[1::2], strict=True):
        # Compared before they become floats, which whole numbers may be too large for; NaN is in no range
        if not all(-FAR * side <= at <= (FAR + 1) * side for at, side in zip(corner, (width, height), strict=True)):
            said = ", ".join(_shown(at) for at in corner)
            raise UserError(f"its segmentation has the corner ({said}), not near its image of {width} x {height}")


def _shown(at: float) -> str:
    said = str(at)
    if len(said) <= SHOWN_DIGITS:
        return said
    return f"{at:.3g}" if isinstance(at, float) else f"{said[:3]}... of {len(said)} digits"


def _from_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Checked before it is decoded, since pycocotools leaves unset what the runs do not reach."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise UserError(f"its mask has the size (height, width) {str(size)[:40]}, its image {[height, width]}")
    runs: Any = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):  # True is an int too
        raise UserError("the run lengths of its mask are broken")
    if sum(runs) != height * width:
        raise UserError(f"the run lengths of its mask cover {sum(runs)} pixels, its image has {height * width}")
    values = np.arange(len(runs)) % 2 == 1  # runs of background and object in turn
    return np.repeat(values, runs).reshape(width, height).T  # column by column


def _unpacked(text: str) -> list[int] | None:
    """Run lengths from COCO's string: five bits a character, lowest first, 32 = more to come, 48 = 0; from the fourth
    run on the difference to the run before the last. None where the string is broken."""
    codes = [ord(character) - 48 for character in text]
    if not all(0 <= code < 64 for code in codes) or (codes and codes[-1] & 32):
        return None
    ends = [0, *(place + 1 for place, code in enumerate(codes) if not code & 32)]
    if any(end - start > LONGEST_RUN for start, end in pairwise(ends)):
        return None
    runs: list[int] = []
    for start, end in pairwise(ends):
        value = sum((code & 31) << (5 * place) for place, code in enumerate(codes[start:end]))
        if codes[end - 1] & 16:  # negative
            value -= 1 << (5 * (end - start))
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs

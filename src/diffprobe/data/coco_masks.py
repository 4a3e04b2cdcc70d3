"""Masks as COCO writes them: polygons, and run lengths as a list or as a string."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from diffprobe.errors import UserError

CORNERS = 3  # the fewest of a polygon


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """[height, width] bool.

    Raises:
        UserError: there is none, it is not one, or it is of another size.
    """
    if not segmentation:
        raise UserError("its annotation has no segmentation")
    if isinstance(segmentation, dict):
        return _from_run_lengths(segmentation, height, width)
    return _from_polygons(segmentation, height, width)


def _from_polygons(polygons: Any, height: int, width: int) -> np.ndarray:
    from pycocotools import mask

    try:
        corners: Any = [[float(value) for value in polygon] for polygon in polygons]
    except (TypeError, ValueError):
        raise UserError("its segmentation is neither polygons nor run lengths") from None
    if any(len(polygon) < 2 * CORNERS or len(polygon) % 2 or not np.isfinite(polygon).all() for polygon in corners):
        raise UserError("its segmentation has a polygon of fewer than three corners, or with half a corner")
    return mask.decode(mask.frPyObjects(corners, height, width)).max(-1) > 0


def _from_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Checked before it is decoded, since pycocotools leaves unset what the runs do not reach."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise UserError(f"its mask has the size (height, width) {size}, its image {[height, width]}")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
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
    runs: list[int] = []
    for start, end in pairwise(ends):
        value = sum((code & 31) << (5 * place) for place, code in enumerate(codes[start:end]))
        if codes[end - 1] & 16:  # negative
            value -= 1 << (5 * (end - start))
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs

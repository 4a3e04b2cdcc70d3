"""Masks as COCO writes them, against pycocotools where that may be trusted."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from diffprobe.data.coco import decode_segmentation


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """[height, width] bool with runs of all lengths."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    centre, radius = random.uniform(0, min(height, width), 2), random.uniform(1, max(height, width))
    noise = random.random((height, width)) < random.choice([0.0, 0.05, 0.5])
    return (np.hypot(rows - centre[0], columns - centre[1]) < radius) ^ noise


@pytest.mark.parametrize("seed", range(12))
def test_run_lengths_are_read_as_pycocotools_writes_them(seed):
    expected = blobs(seed, 37 + 40 * seed, 500 - 41 * seed)
    encoded: Any = mask.encode(np.asfortranarray(expected, np.uint8))
    height, width = expected.shape
    packed = {"size": [height, width], "counts": encoded["counts"].decode()}
    assert np.array_equal(decode_segmentation(packed, height, width), expected)
    flat = expected.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    plain = {"size": [height, width], "counts": [0, *runs] if flat[0] else runs}
    assert np.array_equal(decode_segmentation(plain, height, width), expected)


def test_an_object_may_have_several_polygons():
    """Two squares of 3 x 3 pixels; polygons run along the edges of pixels."""
    polygons = [[1, 1, 4, 1, 4, 4, 1, 4], [6, 5, 9, 5, 9, 8, 6, 8]]
    expected = np.zeros((9, 12), bool)
    expected[1:4, 1:4] = expected[5:8, 6:9] = True
    assert np.array_equal(decode_segmentation(polygons, 9, 12), expected)

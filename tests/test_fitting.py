"""Maps follow their pictures into the square: turned and cropped alike, whatever their resolution."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffprobe.fitting import Geometry, fit_map, visible_box


def turned_by_pillow(values: np.ndarray, orientation: int) -> np.ndarray:
    picture = Image.fromarray(values)
    picture.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_map_of_the_file_is_turned_and_cropped_as_pillow_turns_the_picture(orientation, fit):
    values = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10)
    upright, box = fit_map(values, Geometry(10, 6, orientation, fit), 64)
    expected = turned_by_pillow(values, orientation)
    assert np.array_equal(upright, expected)
    assert box == visible_box(*expected.shape[::-1], fit)
    # The same map at four times the resolution shows the same part of the picture
    fine = values.repeat(4, 0).repeat(4, 1)
    assert fit_map(fine, Geometry(10, 6, orientation, fit), 64)[1] == tuple(4 * side for side in box)


@pytest.mark.parametrize("shape", [(64, 64), (7, 7), (512, 512)])
@pytest.mark.parametrize("geometry", [Geometry(160, 64, 1, "crop"), Geometry(160, 64, 6, "crop"), None])
def test_a_square_map_is_of_the_square_already(shape, geometry):
    values = np.zeros(shape)
    upright, box = fit_map(values, geometry, 64)
    assert upright is values
    assert box == (0, 0, *shape[::-1])


def test_a_map_may_be_rounded_to_whole_pixels():
    for height in (426, 427):  # 426.7 would be right
        upright, _ = fit_map(np.zeros((height, 640)), Geometry(4000, 2667, 1, "crop"), 64)
        assert upright.shape == (height, 640)


@pytest.mark.parametrize(
    ("shape", "geometry", "said"),
    [
        ((64, 128), None, "128 x 64 pixels, and its image is square"),
        ((64, 128), Geometry(160, 64), "128 x 64 pixels, which are neither .* file, which is 160 x 64, nor square"),
        ((160, 64), Geometry(160, 64), "neither"),
        ((160, 64), Geometry(160, 64, 6), "160 x 64 and is turned by its EXIF data, nor square"),  # upright already
        ((424, 640), Geometry(4000, 2667), "neither"),
        ((32, 32), Geometry(100, 100, 6), "whether the map is turned already cannot be told"),
        ((64, 64), Geometry(64, 64, 6), "cannot be told"),
    ],
)
def test_other_maps_are_refused(shape, geometry, said):
    with pytest.raises(ValueError, match=said):
        fit_map(np.zeros(shape), geometry, 64)


def test_of_a_square_picture_that_is_turned_the_size_tells_what_the_map_is_of():
    values = np.arange(100 * 100).reshape(100, 100)
    assert np.array_equal(fit_map(values, Geometry(100, 100, 6), 64)[0], np.rot90(values, -1))
    small = values[:64, :64]
    assert fit_map(small, Geometry(100, 100, 6), 64)[0] is small
    plain = values[:32, :32]
    assert fit_map(plain, Geometry(100, 100, 1), 64)[0] is plain

"""Pictures of the page."""

from __future__ import annotations

import torch

from diffprobe.app.pictures import LINE, SIDE, apply_colours, draw_outline, picture
from diffprobe.properties import property_named


def test_pictures_are_enlarged_without_blending():
    image = torch.zeros(3, 2, 2)
    image[:, 0, 1] = 1
    found = picture(image)
    assert found.shape == (SIDE, SIDE, 3)
    assert (found[: SIDE // 2, SIDE // 2 :] == 255).all()
    assert found.sum() == 255 * 3 * (SIDE // 2) ** 2


def test_an_outline_is_black_outside_and_white_inside_the_mask_and_leaves_the_rest():
    mask = torch.zeros(4, 4)
    mask[1:3, 1:3] = 1
    found = draw_outline(torch.full((3, 8, 8), 0.5), mask)[SIDE // 2]
    edge = SIDE // 4
    assert (found[edge - LINE : edge] == 0).all()
    assert (found[edge : edge + LINE] == 255).all()
    assert (found[edge + LINE : 3 * edge - LINE] == 128).all()
    assert (found[: edge - LINE] == 128).all()


def corners(found) -> list[list[int]]:
    return [found[y, x].tolist() for y in (0, -1) for x in (0, -1)]


def test_colours_run_from_low_to_high():
    maps = torch.tensor([[[-1.0, 0.0], [1.0, 3.0]]])
    assert corners(apply_colours(property_named("saliency"), maps, 0)) == [[0] * 3, [0] * 3, [255] * 3, [255] * 3]


def test_directions_are_red_green_and_blue():
    maps = torch.stack([torch.zeros(3, 2, 2), torch.tensor([1.0, -1.0, 0.0])[:, None, None].expand(3, 2, 2)])
    assert corners(apply_colours(property_named("normals"), maps, 1)) == [[255, 0, 128]] * 4

"""Changed pictures and masks: exact where they can be, and always alike."""

import pickle

import pytest
import torch

from diffprobe.data.image_changes import CHANGES, ChangedImages, change_masks, change_picture
from diffprobe.data.objects import ObjectImages
from diffprobe.errors import UserError
from tests.data.layouts import load_objects

STRENGTHS = {
    "rotation": (15, 90, -140),
    "flip": (1,),
    "scale": (0.5, 0.75, 1.25),
    "padding": (0.1, 0.25),
    "crop": (0.9, 0.6),
    "shift": (0.1, -0.2),
}
EVERY = [(name, strength) for name, strengths in STRENGTHS.items() for strength in strengths]


@pytest.fixture(scope="module")
def scenes() -> ObjectImages:
    return load_objects("scenes", count=8, size=64)[0]


def blocks(height: int, width: int) -> torch.Tensor:
    """[3, height, width]: left red, right blue, and a green bottom."""
    picture = torch.zeros(3, height, width)
    picture[0, :, : width // 2] = 1
    picture[2, :, width // 2 :] = 1
    picture[1, height // 2 :] = 1
    return picture


@pytest.mark.parametrize(("name", "strength"), EVERY)
def test_masks_move_with_their_pictures(scenes, name, strength):
    """Each object painted in one colour: what its mask covers later must have that colour, but for its outline."""
    changed = ChangedImages(scenes, name, strength)
    shown = change_masks(torch.ones(1, 64, 64, dtype=torch.bool), changed.matrix)[0]  # elsewhere is grey
    inside, outside = [], []
    for row in range(len(scenes)):
        for mask, moved in zip(scenes.masks(row), changed.masks(row), strict=True):
            painted = change_picture(mask.float().expand(3, -1, -1), changed.matrix)[0]
            inside.append(moved[painted > 0.75])
            outside.append(moved[(painted < 0.25) & shown])
    assert len(torch.cat(inside)) > 500
    assert torch.cat(inside).float().mean() > 0.98
    assert torch.cat(outside).float().mean() < 0.002


@pytest.mark.parametrize(("name", "strength"), [("rotation", 40), ("scale", 0.75), ("flip", 1), ("shift", 0.1)])
def test_objects_keep_their_colours(scenes, name, strength):
    changed, compared = ChangedImages(scenes, name, strength), 0
    area = changed.matrix[:, :2].det().abs().reciprocal()
    for row in range(len(scenes)):
        before, after = scenes.picture(row, 64), changed.picture(row, 64)
        for mask, moved in zip(scenes.masks(row), changed.masks(row), strict=True):
            if moved.sum() > 0.97 * area * mask.sum():  # all of it is still in the picture
                assert torch.allclose(before[:, mask].mean(1), after[:, moved].mean(1), atol=0.03)
                compared += 1
    assert compared > 3


def test_masks_move_with_their_pictures_in_annotations_that_are_not_square():
    """[2, 90, 30] masks of a picture stretched to 64 x 64."""
    tall = torch.zeros(2, 90, 30, dtype=torch.bool)
    tall[0, 10:40, 5:15] = tall[1, 50:80, 12:28] = True
    square = torch.nn.functional.interpolate(tall[None].float(), (64, 64), mode="area")[0]
    matrix = CHANGES["rotation"](30)
    moved = change_masks(tall, matrix)
    again = torch.nn.functional.interpolate(moved[None].float(), (64, 64), mode="area")[0]
    for mask, other in zip(square, again, strict=True):
        picture = change_picture(mask.expand(3, -1, -1), matrix)[0]
        # What was outside the picture shows grey in a picture and nothing in a mask.
        shown = change_masks(torch.ones(1, 64, 64, dtype=torch.bool), matrix)[0]
        assert (picture - other)[shown].abs().mean() < 0.02


def test_flip_moves_pixels_and_changes_none(scenes):
    once = ChangedImages(scenes, "flip")
    twice = ChangedImages(once, "flip")
    assert torch.equal(once.picture(0, 48), scenes.picture(0, 48).flip(-1))
    assert torch.equal(once.masks(0), scenes.masks(0).flip(-1))
    assert torch.equal(twice.picture(0, 48), scenes.picture(0, 48))
    assert torch.equal(twice.masks(0), scenes.masks(0))


def test_flip_is_the_map_that_its_matrix_says(scenes):
    picture = scenes.picture(0, 64)
    nearly = CHANGES["flip"](1) + torch.tensor([[0, 0, 1e-7], [0, 0, 0]])
    assert torch.allclose(change_picture(picture, nearly), picture.flip(-1), atol=1e-4)


def test_a_full_turn_and_four_quarters_give_the_picture_back(scenes):
    picture, masks = scenes.picture(1, 64), scenes.masks(1)
    assert torch.allclose(change_picture(picture, CHANGES["rotation"](360)), picture, atol=1e-3)
    assert torch.equal(change_masks(masks, CHANGES["rotation"](360)), masks)
    quarter = change_picture(picture, CHANGES["rotation"](90))
    assert torch.allclose(quarter, torch.rot90(picture, 1, (1, 2)), atol=1e-3)  # counter-clockwise
    assert torch.equal(change_masks(masks, CHANGES["rotation"](90)), torch.rot90(masks, 1, (1, 2)))


@pytest.mark.parametrize(("name", "strength"), [("scale", 1), ("padding", 0), ("crop", 1), ("shift", 0)])
def test_no_strength_changes_nothing(scenes, name, strength):
    changed = ChangedImages(scenes, name, strength)
    assert torch.allclose(changed.picture(0, 64), scenes.picture(0, 64), atol=1e-4)
    assert torch.equal(changed.masks(0), scenes.masks(0))


@pytest.mark.parametrize(
    ("name", "strength", "ratio"),
    [
        ("scale", 0.5, 0.25),
        ("scale", 0.75, 0.5625),
        ("scale", 1.25, 1.5625),
        ("padding", 0.25, 1 / 2.25),
        ("crop", 0.8, 1 / 0.64),
    ],
)
def test_areas_change_by_the_square_of_the_factor(name, strength, ratio):
    masks = torch.zeros(1, 64, 96, dtype=torch.bool)
    masks[:, 20:44, 30:66] = True
    changed = change_masks(masks, CHANGES[name](strength))
    assert changed.sum() / masks.sum() == pytest.approx(ratio, rel=0.08)
    picture = change_picture(masks.float().expand(3, -1, -1), CHANGES[name](strength))[0]
    assert (picture > 0.75).sum() / masks.sum() == pytest.approx(ratio, rel=0.12)


def test_shift_goes_right_and_down_and_leaves_grey():
    picture = blocks(40, 40)
    changed = change_picture(picture, CHANGES["shift"](0.25))
    assert torch.allclose(changed[:, 10:, 10:], picture[:, :30, :30], atol=1e-4)
    assert torch.allclose(changed[:, :10], torch.full((3, 10, 40), 0.5), atol=1e-4)
    masks = torch.ones(1, 40, 20, dtype=torch.bool)
    moved = change_masks(masks, CHANGES["shift"](0.25))
    assert moved[0, 10:, 5:].all()
    assert moved.sum() == 30 * 15


def test_shrinking_skips_no_pixel():
    """Stripes one pixel wide become their mean."""
    stripes = (torch.arange(64) % 4 == 0).float().expand(3, 64, 64)
    small = change_picture(stripes, CHANGES["scale"](0.25))[:, 24:40, 24:40]
    assert torch.allclose(small, torch.full_like(small, 0.25), atol=0.02)


def test_objects_pushed_out_are_named_and_have_empty_masks(scenes):
    changed = ChangedImages(scenes, "shift", 0.9)
    gone = changed.vanished()
    assert len(gone) > 3
    for row in range(len(scenes)):
        assert len(changed.masks(row)) == len(changed.objects(row))
        for item, mask in zip(changed.objects(row), changed.masks(row), strict=True):
            assert (item.name in gone) == (not mask.any())
    assert ChangedImages(scenes, "flip").vanished() == []


def test_changed_images_are_images_with_objects_that_say_their_change(tmp_path, scenes):
    changed = pickle.loads(pickle.dumps(ChangedImages(scenes, "rotation", 30)))
    assert changed.names == scenes.names
    assert changed.kind == "scenes"
    assert len(changed) == len(scenes)
    assert changed.objects(2) == scenes.objects(2)
    assert changed.record(0) == {**scenes.record(0), "change": "rotation", "strength": 30}
    picture = changed.picture(0, 32)
    assert picture.shape == (3, 32, 32)
    assert picture.dtype == torch.float32
    assert picture.min() >= 0
    assert picture.max() <= 1


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("turn", 1, "no change 'turn' of images; choose one of rotation, flip"),
        ("scale", 0, "scale by 0"),
        ("crop", 1.5, "crop to 1.5"),
        ("padding", -0.1, "padding of -0.1"),
    ],
)
def test_a_change_that_cannot_be_is_named(scenes, name, strength, message):
    with pytest.raises(UserError, match=message):
        ChangedImages(scenes, name, strength)

"""Maps that are moved: exactly, in the right direction, and kept in the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.analyses.intervention.target_maps import Move, check_range, draw_moves, move, read_mask
from diffprobe.errors import UserError


def block(rows: slice, columns: slice, size: int = 32) -> torch.Tensor:
    mask = torch.zeros(size, size)
    mask[rows, columns] = 1
    return mask


def test_a_shifted_mask_has_background_where_nothing_is_known():
    mask = block(slice(0, 6), slice(4, 10))
    moved = move(mask, Move(right=3, down=5), mask=True)
    assert torch.equal(moved, block(slice(5, 11), slice(7, 13)))
    assert torch.equal(move(mask, Move(right=-6, down=-4), mask=True), block(slice(0, 2), slice(0, 4)))


def test_a_shifted_quantity_goes_on_as_at_its_border():
    values = torch.arange(16.0).view(4, 4)
    assert move(values, Move(right=1), mask=False)[0].tolist() == [0, 0, 1, 2]
    assert move(values, Move(down=-1), mask=False)[:, 0].tolist() == [4, 8, 12, 12]


def test_a_quarter_turn_is_that_of_numpy():
    mask = block(slice(10, 23), slice(15, 18), 33)
    mask[10:12, 18:20] = mask[21:23, 13:15] = 1  # an S, whose centre is the picture's
    assert np.array_equal(move(mask, Move(degrees=90), mask=True).numpy(), np.rot90(mask.numpy()))


def test_turns_are_against_the_clock():
    mask = block(slice(10, 21), slice(13, 18))
    mask[10:13, 18:28] = 1  # an arm at the upper right comes to the upper left, pointing up
    rows, columns = move(mask, Move(degrees=90), mask=True).nonzero().T
    assert columns[rows <= rows.min() + 3].max() < mask.nonzero()[:, 1].float().mean()


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_scale_changes_the_area_about_the_centre(factor):
    mask = block(slice(8, 20), slice(10, 22))
    scaled = move(mask, Move(scale=factor), mask=True)
    assert float(scaled.sum()) == pytest.approx(factor**2 * float(mask.sum()), rel=0.15)
    torch.testing.assert_close(scaled.nonzero().float().mean(0), torch.tensor([13.5, 15.5]), atol=0.6, rtol=0)


def test_drawn_shifts_keep_the_mask_in_the_picture_and_are_the_same_for_a_name():
    masks = [block(slice(0, 8), slice(24, 32)), block(slice(12, 20), slice(12, 20))]
    moves = draw_moves(masks, "translation", 5, 8, 0, ["corner", "centre"])
    assert moves[0].right < 0 < moves[0].down
    for mask, how in zip(masks, moves, strict=True):
        assert abs(how.right) in (5, 6, 7)
        assert move(mask, how, mask=True).sum() == mask.sum()
    assert draw_moves(masks[1:], "translation", 5, 8, 0, ["centre"]) == moves[1:]
    assert draw_moves(masks[1:], "translation", 5, 8, 1, ["centre"]) != moves[1:]


def test_turns_and_scales_are_drawn_from_their_range():
    masks, names = [torch.ones(4, 4)] * 20, [str(number) for number in range(20)]
    turns = [how.degrees for how in draw_moves(masks, "rotation", 20, 40, 0, names)]
    assert all(20 <= abs(turn) <= 40 for turn in turns)
    assert min(turns) < 0 < max(turns)
    assert all(0.5 <= how.scale <= 0.7 for how in draw_moves(masks, "scale", 0.5, 0.7, 0, names))


@pytest.mark.parametrize(("kind", "low", "high"), [("translation", 5, 5), ("scale", -1, 2)])
def test_impossible_moves_are_refused(kind, low, high):
    with pytest.raises(UserError):
        check_range(kind, low, high, 32)


def test_half_of_a_move_is_half_of_everything():
    assert Move(10, -6, 30.0, 1.5).share(0.5) == Move(5, -3, 15.0, 1.25)


def test_a_mask_is_read_from_a_picture(tmp_path):
    Image.fromarray((block(slice(0, 16), slice(0, 32)).numpy() * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    assert torch.equal(read_mask(tmp_path / "mask.png", 8), block(slice(0, 4), slice(0, 8), 8))
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="all black"):
        read_mask(tmp_path / "black.png", 8)
    with pytest.raises(UserError, match="cannot read the mask"):
        read_mask(tmp_path / "none.png", 8)


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "RGBA"])
def test_a_mask_is_read_alike_whatever_its_mode(tmp_path, mode):
    values = block(slice(0, 16), slice(8, 32)).numpy()
    picture = Image.fromarray((values * 255).astype(np.uint8))
    picture = Image.fromarray((values * 65535).astype(np.uint16)) if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "mask.png")
    assert torch.equal(read_mask(tmp_path / "mask.png", 8), block(slice(0, 4), slice(2, 8), 8))


def test_a_mask_that_is_no_plain_square_is_refused_by_name(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    Image.fromarray(colours[..., :3]).save(tmp_path / "colour.png")
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    Image.fromarray(colours[:4, :, 0]).save(tmp_path / "wide.png")
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{} loop\n")
    for name, said in {
        "colour": "in colour",
        "alpha": "transparent pixels",
        "wide": "8 x 4 pixels, and the images",
        "script": "not a picture of a kind",
    }.items():
        with pytest.raises(UserError, match=rf"mask .*{name}\.png.*{said}"):
            read_mask(tmp_path / f"{name}.png", 8)

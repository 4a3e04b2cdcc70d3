from __future__ import annotations

import pytest

from diffprobe.errors import UserError
from diffprobe.probes.splits import Split, split_images


def test_every_image_is_in_exactly_one_part() -> None:
    split = split_images(50)
    assert sorted(split.train + split.validation + split.test) == list(range(50))
    assert all(part == sorted(part) for part in vars(split).values())
    assert [len(split.train), len(split.validation), len(split.test)] == [30, 10, 10]


def test_the_split_depends_on_the_seed_alone() -> None:
    names = [f"image_{row}" for row in range(20)]
    assert split_images(names, seed=1) == split_images(20, seed=1) != split_images(20, seed=2)


def test_three_images_are_enough_and_two_are_not() -> None:
    assert [len(part) for part in vars(split_images(3)).values()] == [1, 1, 1]
    with pytest.raises(UserError, match="2 images"):
        split_images(2)


@pytest.mark.parametrize("fractions", [(0.6, 0.4), (0.8, 0.2, 0.0), (0.6, 0.3, 0.3), (1.2, -0.1, -0.1)])
def test_bad_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="fractions"):
        split_images(10, fractions)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'scene_3'.*scene_1"):
        split_images(["scene_1", "scene_2", "c"], test=["scene_3"])


def test_overlapping_and_empty_parts_are_refused() -> None:
    with pytest.raises(UserError, match="row 1 more than once"):
        Split([0, 1], [1], [2])
    with pytest.raises(UserError, match="validation part"):
        Split([0, 1], [], [2])


def test_given_test_images_are_those_and_the_others_are_split_by_ratio():
    names = [f"image_{row}" for row in range(20)]
    split = split_images(names, (0.6, 0.2, 0.2), seed=3, test=names[12:])
    assert split.test == list(range(12, 20))
    assert (len(split.train), len(split.validation)) == (9, 3)
    assert sorted([*split.train, *split.validation]) == list(range(12))
    with pytest.raises(UserError, match="no image 'image_99'"):
        split_images(names, test=["image_99"])

"""No picture may be in two parts of the split."""

import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.probes.splits import Split
from diffprobe.probes.study.study import check_parts

NAMES = ["a", "b", "c", "d", "e"]
SPLIT = Split(train=[0, 1], validation=[2], test=[3, 4])


def test_different_pictures_and_equal_ones_of_one_part_are_let_pass():
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    check_parts(images, NAMES, SPLIT)
    images[1] = images[0]
    images[4] = images[3]
    check_parts(images, NAMES, SPLIT)


@pytest.mark.parametrize(
    ("one", "other", "parts"), [(0, 3, "d, .*'test'.* of a, .*'train'"), (2, 1, "c, .*'validation'.* of b, .*'train'")]
)
def test_a_picture_in_two_parts_is_refused_by_name(one, other, parts):
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images[one] = images[other] + 1e-6
    with pytest.raises(UserError, match=rf"the image {parts}"):
        check_parts(images, NAMES, SPLIT)

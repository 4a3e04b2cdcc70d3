"""How far pictures agree: by their maps, their classes, and pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffprobe.analyses.shortcuts.agreement import (
    CLASS,
    LPIPS,
    PICTURE,
    PSNR,
    SAME_CLASS,
    SSIM,
    Agreement,
    Seen,
    lpips_distance,
    unrelated,
)
from diffprobe.errors import UserError
from diffprobe.properties import as_properties
from diffprobe.properties.base import Standardisation

SIZE = 16
ITEMS = as_properties(["saliency", "depth", "normals"])
RULES = {"saliency": Standardisation(), "depth": Standardisation(3.0, 2.0), "normals": Standardisation((0, 0, 1), 1.0)}


def seen(count: int = 4, seed: int = 0) -> Seen:
    draw = torch.Generator().manual_seed(seed)
    normals = torch.randn(count, 3, SIZE, SIZE, generator=draw)
    maps = {
        "saliency": (torch.rand(count, SIZE, SIZE, generator=draw) > 0.5).float(),
        "depth": torch.rand(count, SIZE, SIZE, generator=draw),
        "normals": normals / normals.norm(dim=1, keepdim=True),
    }
    return Seen(torch.rand(count, 3, SIZE, SIZE, generator=draw), maps, torch.arange(count))


def test_equal_pictures_agree_wholly_and_have_no_psnr() -> None:
    found = Agreement(ITEMS, RULES)(seen(), seen())
    best = {("saliency", "dice"): 1, ("depth", "spearman"): 1, ("normals", "mean_angle"): 0, (CLASS, SAME_CLASS): 1,
            (PICTURE, SSIM): 1}  # fmt: skip
    for key, value in best.items():
        assert found[key].tolist() == pytest.approx([value] * 4, abs=0.05)
    assert found[PICTURE, PSNR].isnan().all()


def test_each_image_is_compared_with_its_own() -> None:
    whole, other = seen(), seen()
    other.maps["saliency"][1] = 1 - whole.maps["saliency"][1]
    other.maps["depth"][2] = -whole.maps["depth"][2]
    other.pictures[3] = (whole.pictures[3] + 0.1).clamp(0, 1)
    found = Agreement(ITEMS, RULES)(whole, other)
    assert found["saliency", "dice"].tolist() == [1, 0, 1, 1]
    assert found["depth", "spearman"].tolist() == pytest.approx([1, 1, -1, 1])
    error = (other.pictures[3] - whole.pictures[3]).square().mean().item()
    assert found[PICTURE, PSNR][3].item() == pytest.approx(-10 * math.log10(error), rel=1e-4)
    assert found[PICTURE, SSIM][3] < 1


def test_a_map_that_says_nothing_agrees_by_0_and_a_flat_label_leaves_nothing_to_say() -> None:
    whole, other = seen(), seen()
    other.maps["depth"][0], other.maps["saliency"][0] = 0.5, 0
    whole.maps["depth"][1], whole.maps["saliency"][1] = 0.5, 0
    found = Agreement(ITEMS, RULES)(whole, other)
    for key in (("saliency", "dice"), ("depth", "spearman")):
        assert found[key][0] == 0
        assert found[key][1].isnan()
        assert (found[key][2:] > 0.999).all()


def test_unrelated_pictures_have_another_prompt_and_another_seed() -> None:
    asked: list[tuple[int, int]] = []
    whole = Seen(torch.zeros(4, 3, SIZE, SIZE), {}, torch.arange(4))

    def agree(one: Seen, other: Seen) -> dict[tuple[str, str], Tensor]:
        assert one.classes is not None
        assert other.classes is not None
        asked.extend(zip(one.classes.tolist(), other.classes.tolist(), strict=True))
        return {("depth", "spearman"): other.classes.double()}

    found = unrelated(agree, whole, ["a", "a", "b", "c"], [1, 2, 2, 3])
    assert sorted(asked) == [(0, 2), (0, 3), (1, 3), (2, 0), (2, 3), (3, 0), (3, 1), (3, 2)]
    assert found["depth", "spearman"].tolist() == [2.5, 3, 1.5, 1]


def test_without_unrelated_pictures_nothing_is_said_of_them() -> None:
    whole = seen(2)
    found = unrelated(Agreement(ITEMS, RULES), whole, ["a", "a"], [1, 2])
    assert all(values.isnan().all() for values in found.values())


def test_lpips_is_a_number_of_each_picture_where_it_is_to_be_had() -> None:
    agree = Agreement(ITEMS, RULES, lambda one, other: (one - other).abs().mean((1, 2, 3)))
    found = agree(seen(), seen(seed=1))[PICTURE, LPIPS]
    assert found.shape == (4,)
    assert (found > 0).all()


def test_lpips_without_its_weights_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"analysis\.lpips=true needs torchvision") as caught:
        lpips_distance()
    assert "\n" not in str(caught.value)

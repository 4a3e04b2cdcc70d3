"""Shading by Intrinsic, of which a stand-in with its interface is enough: names, shapes, types, inverse shading."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from diffprobe.errors import UserError
from diffprobe.labels.shading import IntrinsicShading

IMAGES = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b"]


def stand_in(scale=1):
    """A module with the interface of `intrinsic.pipeline`, whose shading is the picture's brightness."""
    module = ModuleType("intrinsic.pipeline")

    def load_models(path, stage=4, device="cuda", compiled=False, chroma_dpt=False, alb_residual=False):
        if path == "nowhere":
            raise FileNotFoundError(path)
        assert (stage, device) == (1, "cpu")
        torch.manual_seed(len(str(path)))
        return {"ord_model": nn.Conv2d(3, 1, 1), "iid_model": nn.Conv2d(5, 1, 1)}

    def run_pipeline(models, img_arr, stage=4, resize_conf=0.0, base_size=384, linear=False, device="cuda"):
        assert set(models) == {"ord_model", "iid_model"}
        assert (stage, device, linear) == (1, "cpu", False)
        assert img_arr.dtype == np.float32
        assert img_arr.ndim == 3
        assert img_arr.shape[2] == 3
        shading = img_arr.mean(2).repeat(scale, 0).repeat(scale, 1)
        return {"gry_shd": 1 / (shading + 1), "gry_alb": img_arr, "image": img_arr, "lin_img": img_arr**2.2}

    module.load_models, module.run_pipeline = load_models, run_pipeline
    return module


def put(monkeypatch, pipeline):
    package = ModuleType("intrinsic")
    package.pipeline = pipeline
    monkeypatch.setitem(sys.modules, "intrinsic", package)
    monkeypatch.setitem(sys.modules, "intrinsic.pipeline", pipeline)


@pytest.mark.parametrize("scale", [1, 2])
def test_shading_is_turned_back_and_brought_to_the_images_size(monkeypatch, scale):
    put(monkeypatch, stand_in(scale))
    found = IntrinsicShading(device="cpu")(IMAGES, NAMES, ["shading"])["shading"]
    expected = (IMAGES * 255).round().mean(1) / 255
    assert found.shape == (2, 24, 24)
    assert found.dtype == torch.float32
    if scale == 1:
        assert torch.allclose(found, expected, atol=1e-5)
    else:  # smoothed a little by going there and back
        assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.9


def test_black_in_the_inverse_map_stays_finite(monkeypatch):
    pipeline = stand_in()
    pipeline.run_pipeline = lambda models, img_arr, **options: {"gry_shd": np.zeros(img_arr.shape[:2], np.float32)}
    put(monkeypatch, pipeline)
    assert IntrinsicShading(device="cpu")(IMAGES, NAMES, ["shading"])["shading"].unique().item() == pytest.approx(999)


def test_the_fingerprint_tells_the_weights(monkeypatch):
    put(monkeypatch, stand_in())
    one, same, other = (IntrinsicShading(weights, device="cpu") for weights in ("paper_weights", "paper_weights", "v2"))
    assert one.fingerprint("shading") == same.fingerprint("shading") != other.fingerprint("shading")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "intrinsic", None)
    with pytest.raises(UserError, match=r"pip install https://github\.com/compphoto/Intrinsic/archive/main\.zip"):
        IntrinsicShading(device="cpu")
    monkeypatch.setitem(sys.modules, "intrinsic", ModuleType("intrinsic"))  # another package of that name
    with pytest.raises(UserError, match="compphoto/Intrinsic"):
        IntrinsicShading(device="cpu")


def test_weights_that_do_not_load_and_another_release_are_told_before_any_work(monkeypatch):
    put(monkeypatch, stand_in())
    with pytest.raises(UserError, match="cannot load the weights nowhere"):
        IntrinsicShading("nowhere", device="cpu")
    with pytest.raises(UserError, match="cannot label depth"):
        IntrinsicShading(device="cpu").check(NAMES, ["depth"], 64)
    older = stand_in()
    older.run_pipeline = lambda models, img_arr, **options: {"inv_shading": img_arr.mean(2), "albedo": img_arr}
    put(monkeypatch, older)
    with pytest.raises(UserError, match=r"pip install .*no 'gry_shd' among its results inv_shading, albedo"):
        IntrinsicShading(device="cpu")


def test_files_of_weights_that_hold_more_are_refused_before_the_package_sees_them(monkeypatch, tmp_path):
    class Harmful:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    put(monkeypatch, stand_in())
    torch.save({"weight": torch.zeros(1)}, tmp_path / "good.pt")
    torch.save({"weight": Harmful()}, tmp_path / "bad.pt")
    IntrinsicShading([str(tmp_path / "good.pt")], device="cpu")
    for name in ("bad.pt", "none.pt"):
        with pytest.raises(UserError, match=rf"{name} is no file of weights alone"):
            IntrinsicShading([str(tmp_path / "good.pt"), str(tmp_path / name)], device="cpu")
    assert not (tmp_path / "ran").exists()

"""Depth by .onnx files: pictures as each family wants them, and larger values where things are nearer."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.errors import UserError
from diffprobe.labels.onnx_depth import FAMILIES, OnnxDepth
from tests.labels.tiny_onnx import SCRAMBLED, convolved, cubic, linear, pixelwise, resized, save_maps

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b"]
KERNEL = SCRAMBLED[:1] / 4


def slowly(image, family):
    """The distances of the network in `save_maps` for an image, by the recipe of each family."""
    levels = np.rint(image.numpy() * 255) / 255
    if family == "omnidata":
        planes = (Image.fromarray(each.astype(np.float32)) for each in levels)
        picture = np.stack([np.asarray(each.resize((384, 384), Image.Resampling.BILINEAR)) for each in planes])
        distances = np.clip(convolved((picture - 0.5) / 0.5, KERNEL), 0, 1)
    else:
        distances = convolved(resized(levels, 512, linear, 1)[::-1], KERNEL)
    return resized(distances, 32, cubic, 2)[0]


@pytest.mark.parametrize("outputs", [["map"], ["grey"]])
@pytest.mark.parametrize("family", FAMILIES)
def test_depth_is_the_negative_of_the_familys_distance(tmp_path, family, outputs):
    labeler = OnnxDepth(save_maps(tmp_path / "model.onnx", KERNEL, outputs=outputs), family, device="cpu")
    found = labeler(IMAGES, NAMES, ["depth"])["depth"]
    expected = -np.stack([slowly(image, family) for image in IMAGES])
    assert found.shape == (2, 32, 32)
    assert expected.std() > 0.05
    assert np.abs(found.numpy() - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("inverse_depth", [0.0, 0.5, 1.0]),
        ("distance", [10.0, 2.0, 1.0]),  # nearer than 0.1 m counts as 0.1 m
        ("relative_distance", [0.0, -0.5, -1.0]),
        (None, [0.0, -0.5, -1.0]),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_larger_is_nearer_whatever_the_file_gives(tmp_path, family, output, expected):
    path = save_maps(tmp_path / "model.onnx", pixelwise(np.eye(3)[1:2]), [0.0])  # the green of a picture
    labeler = OnnxDepth(path, family, output, mean=[0, 0, 0], std=[1, 1, 1], device="cpu")
    for level, value in zip((0, 128 / 255, 1), expected, strict=True):
        found = labeler(torch.full((1, 3, 32, 32), level), ["a"], ["depth"])["depth"]
        assert found.amax() - found.amin() < 1e-4
        assert float(found.mean()) == pytest.approx(value, abs=0.01)


def test_a_model_of_several_maps_gives_the_first_with_one_channel(tmp_path):
    several = save_maps(tmp_path / "several.onnx", outputs=["other", "grey"])
    found = OnnxDepth(several, "david", device="cpu")(IMAGES, NAMES, ["depth"])["depth"]
    means = [convolved(resized(np.rint(image.numpy() * 255) / 255, 512, linear, 1)[::-1]).mean(0) for image in IMAGES]
    expected = -np.concatenate([resized(each[None], 32, cubic, 2) for each in means])
    assert np.abs(found.numpy() - expected).max() < 1e-3


def test_the_fingerprint_tells_the_file_and_the_settings(tmp_path):
    path = save_maps(tmp_path / "a.onnx", KERNEL)
    labelers = [
        OnnxDepth(path, device="cpu"),
        OnnxDepth(save_maps(tmp_path / "b.onnx", KERNEL, size=32), device="cpu"),
        OnnxDepth(path, "david", device="cpu"),
        OnnxDepth(path, output="inverse_depth", device="cpu"),
        OnnxDepth(path, mean=[0, 0, 0], device="cpu"),
    ]
    assert len({labeler.fingerprint("depth") for labeler in labelers}) == len(labelers)
    same = OnnxDepth(path, output="relative_distance", device="cpu")
    assert same.fingerprint("depth") == labelers[0].fingerprint("depth")


def test_what_is_no_depth_model_is_refused_before_any_work(tmp_path, monkeypatch):
    def refusal(*arguments, **settings):
        with pytest.raises(UserError) as caught:
            OnnxDepth(*arguments, device="cpu", **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no model is set to label depth with; give labeler.depth.path=FILE.onnx (Omnidata or DAViD)" in refusal(None)
    assert "labeler.depth.family=dsine: use one of omnidata, david" in refusal(None, "dsine")
    path = save_maps(tmp_path / "model.onnx", KERNEL)
    assert refusal(path, output="disparity") == (
        "labeler.depth.output=disparity: use inverse_depth, distance or relative_distance"
    )
    normals = save_maps(tmp_path / "normals.onnx")
    assert refusal(normals) == (
        f"{normals} does not run as a depth model: its outputs are [1, 3, 384, 384], and none is a map "
        "[1, 1, height, width]"
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "labelling depth with an .onnx file needs onnxruntime" in refusal(path)

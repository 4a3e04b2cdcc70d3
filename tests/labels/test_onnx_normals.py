"""Surface normals by .onnx files: pictures as each family wants them, and vectors right, up and towards the camera."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from diffprobe.errors import UserError
from diffprobe.labels.labeler import CachedLabeler
from diffprobe.labels.onnx_normals import FAMILIES, OnnxNormals
from diffprobe.properties import PROPERTIES
from tests.labels.tiny_onnx import SCRAMBLED, convolved, cubic, linear, pixelwise, resized, save_maps

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b"]
SPECTRUM = {"dsine": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}  # mean and std; others take [0, 1]

# Directions in the frame of the labels: right, up, towards the camera
RIGHT, UP, TOWARDS = np.eye(3)
# What the channels of a family are said to be, and whether a normal points to the side that is seen
AXES = {
    "dsine": ((RIGHT, -UP, -TOWARDS), False),
    "omnidata": ((RIGHT, -UP, -TOWARDS), True),
    "david": ((RIGHT, UP, TOWARDS), True),
}
# Three points of a plane, each (right, up, towards the camera), which is at 0 and looks the other way
PLANES = {
    "a wall that faces the camera": [(0, 0, -2), (1, 0, -2), (0, 1, -2)],
    "a floor": [(0, -1, -2), (1, -1, -2), (0, -1, -3)],
    "a ceiling": [(0, 1, -2), (1, 1, -2), (0, 1, -3)],
    "a wall at the left": [(-1, 0, -2), (-1, 1, -2), (-1, 0, -3)],
    "a ramp that rises to the right": [(0, -1, -2), (1, -0.5, -2), (0, -1, -3)],
}


def normal_of(points):
    """Of length 1, on the side of the camera."""
    first, second, third = np.array(points, float)
    normal = np.cross(second - first, third - first)
    return normal / np.linalg.norm(normal) * -np.sign(normal @ first)


def test_the_normals_of_the_planes_are_what_one_sees():
    found = {name: normal_of(points).round(3).tolist() for name, points in PLANES.items()}
    assert found["a wall that faces the camera"] == [0, 0, 1]
    assert found["a floor"] == [0, 1, 0]
    assert found["a ceiling"] == [0, -1, 0]
    assert found["a wall at the left"] == [1, 0, 0]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_the_same_of_a_plane(tmp_path, family, plane):
    normal = normal_of(PLANES[plane])
    axes, is_seen = AXES[family]
    said = np.array([axis @ normal for axis in axes]) * (1 if is_seen else -1)
    colour = (said + 1) / 2  # the picture shows what the network, which copies it, shall say
    copy = np.eye(3)[::-1] if family == "david" else np.eye(3)
    scale, shift = (1, 0) if family == "omnidata" else (2, -1)
    path = save_maps(tmp_path / "model.onnx", pixelwise(scale * copy), [shift] * 3)
    labeler = OnnxNormals(path, family, mean=[0, 0, 0], std=[1, 1, 1], device="cpu")
    image = torch.from_numpy(colour).float()[None, :, None, None].expand(1, 3, 32, 32)
    found = labeler(image, ["a"], ["normals"])["normals"][0]
    assert np.abs(found.numpy() - normal[:, None, None]).max() < 0.01  # colours have 8 bits


def slowly(image, family):
    """The vectors of the network in `save_maps` for an image, by the recipe of each family, at the image's size."""
    levels = np.rint(image.numpy() * 255) / 255
    if family == "omnidata":
        planes = (Image.fromarray(each.astype(np.float32)) for each in levels)
        picture = np.stack([np.asarray(each.resize((384, 384), Image.Resampling.BILINEAR)) for each in planes])
    elif family == "david":
        picture = resized(levels, 512, linear, 1)[::-1]
    else:
        mean, std = (np.array(each)[:, None, None] for each in SPECTRUM[family])
        picture = (levels - mean) / std
    vectors = convolved(picture)
    if family == "omnidata":
        vectors = 2 * np.clip(vectors, 0, 1) - 1
    if family != "dsine":
        vectors = resized(vectors, 32, cubic, 2)
    return vectors / np.linalg.norm(vectors, axis=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_the_familys_recipe(tmp_path, family):
    labeler = OnnxNormals(save_maps(tmp_path / "model.onnx"), family, device="cpu")
    found = labeler(IMAGES, NAMES, ["normals"])["normals"]
    signs = {"dsine": (-1, 1, 1), "omnidata": (1, -1, -1), "david": (1, 1, 1)}[family]
    expected = [np.array(signs)[:, None, None] * slowly(image, family) for image in IMAGES]
    assert found.shape == (2, 3, 32, 32)
    assert np.abs(found.numpy() - np.stack(expected)).max() < 2e-3
    assert torch.allclose(PROPERTIES["normals"].target(found), found, atol=1e-5)


@pytest.mark.parametrize(("family", "brightness"), [("dsine", 0.25), ("omnidata", 0.25), ("david", 0.0)])
def test_a_picture_that_shrinks_is_smoothed_as_by_pillow_or_not_as_by_opencv(tmp_path, family, brightness):
    """Of four rows the first is bright; without smoothing a pixel of the smaller picture sees the two in the middle."""
    kernel = pixelwise([[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    path = save_maps(tmp_path / "model.onnx", kernel, [0.6, 0.5, 0.9], size=16)
    image = torch.zeros(1, 3, 64, 64)
    image[:, :, ::4] = 1
    labeler = OnnxNormals(path, family, mean=[0, 0, 0], std=[1, 1, 1], device="cpu")
    found = labeler(image, ["a"], ["normals"])["normals"][0, :, 32, 32].abs()
    right, towards = (2 * each - 1 if family == "omnidata" else each for each in (brightness + 0.6, 0.9))
    assert float(found[0] / found[2]) == pytest.approx(right / towards, abs=0.01)


@pytest.mark.parametrize(("side", "before", "after"), [(32, 0, 0), (40, 12, 12), (51, 6, 7)])
def test_dsine_gets_the_picture_with_black_margins_and_the_matrix_of_the_camera(tmp_path, side, before, after):
    path = save_maps(tmp_path / "model.onnx", camera=True, outputs=["other", "map"])
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))
    found = OnnxNormals(path, device="cpu")(image[None], ["a"], ["normals"])["normals"][0]
    mean, std = (np.array(each)[:, None, None] for each in SPECTRUM["dsine"])
    black = np.zeros((3, before + side + after, before + side + after))
    black[:, before : before + side, before : before + side] = np.rint(image.numpy() * 255) / 255
    focal = side / 2 / np.tan(np.pi / 6)  # 60 degrees from edge to edge
    centre = (side - 1) / 2 + before
    rows = np.array([focal + centre, focal + centre, 1])
    vectors = (convolved((black - mean) / std) + rows[:, None, None])[:, before : before + side, before : before + side]
    expected = np.array([-1, 1, 1])[:, None, None] * vectors / np.linalg.norm(vectors, axis=0)
    assert np.abs(found.numpy() - expected).max() < 1e-5


def test_the_matrix_is_that_of_the_picture_that_the_file_wants(tmp_path):
    """A camera that sees twice as many pixels at the same angle."""
    path = save_maps(tmp_path / "model.onnx", np.zeros((3, 3, 1, 1)), [0, 0, 0], size=64, camera=True)
    for degrees in (60, 90):
        found = OnnxNormals(path, field_of_view=degrees, device="cpu")(IMAGES[:1], ["a"], ["normals"])["normals"][0]
        focal = 32 / np.tan(np.radians(degrees / 2))
        expected = np.array([-(focal + 31.5), focal + 31.5, 1])
        assert np.abs(found.numpy() - (expected / np.linalg.norm(expected))[:, None, None]).max() < 1e-5


def test_a_model_of_several_maps_gives_the_first_with_three_channels(tmp_path):
    several = save_maps(tmp_path / "several.onnx", outputs=["grey", "map", "other"])
    alone = save_maps(tmp_path / "alone.onnx")
    first, second = (OnnxNormals(path, "david", device="cpu") for path in (several, alone))
    assert torch.equal(first(IMAGES, NAMES, ["normals"])["normals"], second(IMAGES, NAMES, ["normals"])["normals"])


def test_pixels_without_a_vector_have_none(tmp_path):
    path = save_maps(tmp_path / "model.onnx", pixelwise(np.eye(3)), [0, 0, 0])
    labeler = OnnxNormals(path, mean=[0, 0, 0], std=[1, 1, 1], device="cpu")
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, :16] = 0.5
    lengths = labeler(image, ["a"], ["normals"])["normals"].norm(dim=1)[0]
    assert torch.equal(lengths[16:], torch.zeros(16, 32))
    assert torch.allclose(lengths[:16], torch.ones(16, 32))


def test_vectors_are_kept_bit_for_bit(tmp_path):
    path = save_maps(tmp_path / "model.onnx")
    first = CachedLabeler(OnnxNormals(path, device="cpu"), tmp_path / "labels")(IMAGES, NAMES, ["normals"])["normals"]
    again = OnnxNormals(path, device="cpu")
    again.maps = None  # type: ignore[method-assign] # whoever computes fails
    assert torch.equal(CachedLabeler(again, tmp_path / "labels")(IMAGES, NAMES, ["normals"])["normals"], first)
    assert first.shape == (2, 3, 32, 32)
    assert len(list((tmp_path / "labels" / "normals").rglob("*.safetensors"))) == 2


def test_the_fingerprint_tells_the_file_and_the_settings(tmp_path):
    path = save_maps(tmp_path / "a.onnx")
    camera = save_maps(tmp_path / "camera.onnx", camera=True)
    labelers = [
        OnnxNormals(path, device="cpu"),
        OnnxNormals(save_maps(tmp_path / "b.onnx", size=32), device="cpu"),
        OnnxNormals(path, "omnidata", device="cpu"),
        OnnxNormals(path, mean=[0, 0, 0], device="cpu"),
        OnnxNormals(path, std=[1, 1, 1], device="cpu"),
        OnnxNormals(tmp_path / "b.onnx", "omnidata", device="cpu"),
        OnnxNormals(tmp_path / "b.onnx", "david", device="cpu"),  # of the same size, mean and std
        OnnxNormals(camera, device="cpu"),
        OnnxNormals(camera, field_of_view=50, device="cpu"),
    ]
    assert len({labeler.fingerprint("normals") for labeler in labelers}) == len(labelers)
    moved = path.rename(tmp_path / "moved.onnx")
    same = OnnxNormals(moved, field_of_view=50, device="cpu")  # the file takes no camera
    assert same.fingerprint("normals") == labelers[0].fingerprint("normals")


def refusal(*arguments, **settings):
    with pytest.raises(UserError) as caught:
        OnnxNormals(*arguments, device="cpu", **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_model_of_normals_is_refused_before_any_work(tmp_path):
    assert "no model is set to label normals with; give labeler.normals.path=FILE.onnx (DSINE" in refusal(None)
    assert "there is no file nowhere.onnx" in refusal("nowhere.onnx")
    assert "labeler.normals.family=midas: use one of dsine, omnidata, david" in refusal(None, "midas")
    depth = save_maps(tmp_path / "depth.onnx", SCRAMBLED[:1], outputs=["map", "grey"])
    shapes = "its outputs are [1, 1, 64, 64], [1, 64, 64], and none is a map [1, 3, height, width]"
    assert refusal(depth) == f"{depth} does not run as a normals model: {shapes}"
    flat = save_maps(tmp_path / "flat.onnx", outputs=["flat"])
    assert "its outputs are [1, 3], and none is a map" in refusal(flat)
    infinite = save_maps(tmp_path / "log.onnx", then="Log")
    assert "as a normals model: its map has values that are infinite or not numbers" in refusal(infinite)
    camera = refusal(save_maps(tmp_path / "camera.onnx", camera=True), "omnidata")
    assert "takes 2 inputs (img, intrins), and a normals model of the family omnidata takes pictures alone" in camera
    with pytest.raises(UserError, match="OnnxNormals labels normals and cannot label depth"):
        OnnxNormals(save_maps(tmp_path / "model.onnx"), device="cpu").check(NAMES, ["depth"], 64)


def test_an_image_of_which_the_map_is_not_finite_is_told(tmp_path):
    path = save_maps(tmp_path / "log.onnx", pixelwise(np.eye(3)), [0.001] * 3, then="Log")
    labeler = OnnxNormals(path, "omnidata", device="cpu")
    black = save_maps(tmp_path / "black.onnx", pixelwise(np.eye(3)), [0, 0, 0], then="Log")
    assert labeler(IMAGES, NAMES, ["normals"])["normals"].isfinite().all()
    with pytest.raises(UserError, match=r"black\.onnx, a normals model, fails at an image: its map has values"):
        OnnxNormals(black, "omnidata", device="cpu")(torch.zeros(1, 3, 32, 32), ["a"], ["normals"])


def test_without_onnxruntime_it_says_what_to_install(tmp_path, monkeypatch):
    path = save_maps(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "labelling normals with an .onnx file needs onnxruntime: pip install -e '.[saliency]'" in refusal(path)

"""Files of every format and kind of map are read back to the values that were written, or refused by name."""

from __future__ import annotations

import re
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from diffprobe.data.images import ImageFileCollection, load_images
from diffprobe.errors import UserError
from diffprobe.fitting import Geometry
from diffprobe.labels.files import FilesLabeler
from diffprobe.labels.labeler import DefinitionAwareLabeler, PerProperty
from diffprobe.labels.map_files import EXTENSIONS, read_map
from diffprobe.properties import CustomProperty, Property
from diffprobe.properties.categorical import Categorical
from diffprobe.properties.continuous import Continuous
from diffprobe.properties.vector import Vector

MASK = CustomProperty("mask", "binary").properties[0]
HEIGHT = CustomProperty("height", "continuous").properties[0]
NEARNESS = CustomProperty("nearness", "depth").properties[0]
PARTS = CustomProperty("parts", "categorical", classes=["ground", "leg", "arm"], ignore=255).properties[0]
NORMALS = CustomProperty("normals", "vector").properties[0]
FLOW = CustomProperty("flow", "vector", channels=2, unit=False).properties[0]
PLACE = CustomProperty("place", "vector", unit=False).properties[0]
PROPERTIES = {item.name: item for item in (MASK, HEIGHT, NEARNESS, PARTS, NORMALS, FLOW, PLACE)}

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.integers(0, 3, (6, 9)).astype(np.uint8)
LEVELS = np.arange(54, dtype=np.uint16).reshape(6, 9) * 1200  # up to 63600
VECTORS = RANDOM.normal(size=(6, 9, 3))
UNIT = VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True)
COLOURS = ((UNIT + 1) * 127.5).round().astype(np.uint8)


def write(path: Path, values: np.ndarray, **options) -> Path:
    """The values in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".safetensors":
        save_file({"any name": np.ascontiguousarray(values)}, path)
    else:
        Image.fromarray(values).save(path, **options)
    return path


def write_tiff(path: Path, values: np.ndarray, sample_format: int) -> Path:
    """What Pillow cannot write: little-endian, one strip, without compression (TIFF 6.0). Sample formats: 1 unsigned,
    2 signed, 3 floating point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, *more = values.shape
    samples, bits = (more or [1])[0], values.dtype.itemsize * 8
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 2 if samples > 1 else 1, 273: 0, 277: samples}
    entries |= {278: height, 279: values.nbytes, 339: sample_format}
    lists = {tag: struct.pack(f"<{samples}H", *[entries[tag]] * samples) for tag in (258, 339)}
    start = 8 + 2 + 12 * len(entries) + 4
    outside = b"".join(lists.values()) if samples > 2 else b""
    entries[273] = start + len(outside)
    rows = b""
    for tag, value in entries.items():
        if tag in lists and outside:
            rows += struct.pack("<HHII", tag, 3, samples, start + (0 if tag == 258 else 2 * samples))
        else:
            rows += struct.pack("<HHII", tag, 4 if tag not in lists else 3, 1, value)
    header = b"II*\0" + struct.pack("<IH", 8, len(entries))
    path.write_bytes(header + rows + struct.pack("<I", 0) + outside + values.tobytes())
    return path


def refusal(folder: Path, item: Property, size: int = 6, geometry: Geometry | None = None) -> str:
    """What `FilesLabeler.check` says of the only map of image x."""
    labeler = FilesLabeler(folder)
    labeler.set_properties(PROPERTIES)
    labeler.set_geometries({} if geometry is None else {"x": geometry})
    with pytest.raises(UserError) as caught:
        labeler.check(["x"], [item.name], size)
    line = str(caught.value)
    assert line.startswith(f"1 of the 1 maps of {item.name} cannot be used: ")
    assert "\n" not in line
    (path,) = (folder / item.name).iterdir()
    assert str(path) in line
    return line


# What is read


@pytest.mark.parametrize("ending", EXTENSIONS)
@pytest.mark.parametrize("item", [MASK, HEIGHT, NEARNESS], ids=lambda item: item.kind)
def test_a_plane_of_numbers_is_read_as_written(tmp_path, ending, item):
    for values in (LEVELS, LEVELS.astype(np.uint8)):
        assert np.array_equal(read_map(write(tmp_path / f"x{ending}", values), item), values)


@pytest.mark.parametrize("ending", [".npy", ".safetensors", ".tif", ".tiff"])
def test_fractions_are_read_from_what_can_hold_them(tmp_path, ending):
    values = RANDOM.normal(size=(6, 9)).astype(np.float32)
    assert np.array_equal(read_map(write(tmp_path / f"x{ending}", values), HEIGHT), values)


@pytest.mark.parametrize("shape", [(1, 6, 9), (6, 9, 1), (1, 1, 6, 9)])
@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_sides_of_one_are_no_channels(tmp_path, ending, shape):
    assert np.array_equal(read_map(write(tmp_path / f"x{ending}", LEVELS.reshape(shape)), HEIGHT), LEVELS)
    assert np.array_equal(read_map(write(tmp_path / f"x{ending}", NUMBERS.reshape(shape)), PARTS), NUMBERS)


@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (LEVELS.astype(np.uint32) * 67_000, 1),  # beyond what a signed number holds
        (LEVELS.astype(np.int32) - 30_000, 2),
        ((LEVELS.astype(np.int32) - 30_000).astype(np.int16), 2),
        ((LEVELS // 300).astype(np.int16).astype(np.int8), 2),
        (LEVELS, 1),
        (LEVELS.astype(np.float32) / 7, 3),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_numbers_of_a_tiff_file_have_the_sign_that_it_says(tmp_path, values, sample_format):
    found = read_map(write_tiff(tmp_path / "x.tif", values, sample_format), HEIGHT)
    assert np.array_equal(found.astype(float), values.astype(float))


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_class_numbers_are_read_as_written_and_what_is_ignored_is_none(tmp_path, ending):
    values = np.where(RANDOM.random(NUMBERS.shape) < 0.3, 255, NUMBERS).astype(np.uint8)
    found = read_map(write(tmp_path / f"x{ending}", values), PARTS)
    assert np.array_equal(found, np.where(values == 255, -1, values.astype(float)))


def test_minus_one_is_no_class_whatever_is_ignored(tmp_path):
    values = np.where(NUMBERS == 2, -1, NUMBERS.astype(np.int16))
    assert np.array_equal(read_map(write(tmp_path / "x.npy", values), PARTS), values)


def test_an_ignored_number_may_be_that_of_a_class(tmp_path):
    (item,) = CustomProperty("parts", "categorical", classes=["a", "b", "c"], ignore=0).properties
    found = read_map(write(tmp_path / "x.npy", NUMBERS), item)
    assert np.array_equal(found, np.where(NUMBERS == 0, -1, NUMBERS.astype(float)))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_classes_in_a_palette_are_its_numbers_and_not_its_colours(tmp_path, ending, bits):
    picture = Image.fromarray(NUMBERS).convert("P")
    picture.putpalette([200, 10, 10, 0, 0, 0, 10, 200, 10])
    options = {"bits": bits} if ending == ".png" else {}
    picture.save(tmp_path / f"x{ending}", **options)
    assert np.array_equal(read_map(tmp_path / f"x{ending}", PARTS), NUMBERS)


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
@pytest.mark.parametrize("first", [True, False], ids=["channels first", "channels last"])
def test_vectors_are_read_with_channels_first_or_last(tmp_path, ending, first):
    for item, values in ((NORMALS, UNIT), (FLOW, VECTORS[..., :2] * 5)):
        stored = np.moveaxis(values, -1, 0) if first else values
        found = read_map(write(tmp_path / f"x{ending}", stored), item)
        assert found.shape == values.shape
        np.testing.assert_allclose(found, values, atol=1e-12)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_vectors_are_read_from_colours_however_wide_and_compressed(tmp_path, compression):
    for width in (9, 120, 123, 136, 160, 161, 168):
        colours = np.resize(COLOURS, (6, width, 3))
        found = read_map(write(tmp_path / "x.tif", colours, compression=compression), NORMALS)
        wanted = colours / 127.5 - 1
        np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=-1, keepdims=True))


def test_colours_give_unit_vectors_to_half_a_level_and_others_as_they_are(tmp_path):
    path = write(tmp_path / "x.png", COLOURS)
    assert np.abs(read_map(path, NORMALS) - UNIT).max() < 1.5 / 127.5
    assert np.array_equal(read_map(path, PLACE), COLOURS)


@pytest.mark.parametrize("nothing", [(128, 128, 128), (127, 127, 127), (0, 0, 0), (255, 255, 255)])
def test_colours_of_no_direction_are_no_vector(tmp_path, nothing):
    colours = COLOURS.copy()
    colours[:2] = nothing
    found = read_map(write(tmp_path / "x.png", colours), NORMALS)
    assert not found[:2].any()
    assert np.linalg.norm(found[2:], axis=-1) == pytest.approx(1)


# What is refused


def grey(values, **options):
    return lambda path: write(path, values, **options)


REFUSED = {
    "fractions of classes": (PARTS, ".npy", grey(NUMBERS + 0.5), "class numbers must be whole, and it has others"),
    "a class beyond": (PARTS, ".png", grey(NUMBERS * 3), r"it has the class number 6, and the 3 classes are numbered"),
    "a class below": (PARTS, ".npy", grey(NUMBERS - 4.0), "it has the class number -"),
    "no number": (PARTS, ".npy", grey(np.where(NUMBERS, np.nan, 1)), "are infinite or not numbers"),
    "colours of classes": (PARTS, ".png", grey(COLOURS), "in colour"),
    "no class": (PARTS, ".png", grey(np.full((6, 6), 255, np.uint8)), "has no class at all"),
    "classes in channels": (PARTS, ".npy", grey(np.zeros((3, 6, 6))), "it must be one plane of numbers"),
    "a line of classes": (PARTS, ".npy", grey(NUMBERS[0]), "it must be one plane of numbers"),
    "two channels in a picture": (FLOW, ".png", grey(COLOURS), "a picture has three channels, and flow has 2; save it"),
    "channels of another number": (NORMALS, ".npy", grey(UNIT[..., :2]), r"it must be \[height, width, 3\]"),
    "images of vectors": (NORMALS, ".npy", grey(UNIT[None]), r"has shape \[1, 6, 9, 3\]"),
    "no pixel": (NORMALS, ".npy", grey(UNIT[:, :0]), r"it must be \[height, width, 3\]"),
    "long vectors": (NORMALS, ".npy", grey(UNIT * 20), "less than half .* length 1 .the middle length is 20.; scale"),
    "short vectors": (NORMALS, ".npy", grey(UNIT * 0.1), "less than half"),
    "stored colours": (NORMALS, ".npy", grey(COLOURS), "less than half"),
    "no vector": (FLOW, ".npy", grey(np.zeros((6, 6, 2))), "has no vector at all"),
    "infinite vectors": (FLOW, ".npy", grey(np.full((6, 6, 2), np.inf)), "72 of its 72 values are infinite"),
    "huge vectors": (FLOW, ".npy", grey(VECTORS[..., :2] * 1e200), "beyond 3.4e38"),
    "alpha": (NORMALS, ".png", grey(np.dstack([COLOURS, NUMBERS])), "it has an alpha channel, and vectors have none"),
    "opaque alpha": (NORMALS, ".tif", grey(np.dstack([COLOURS, NUMBERS * 0 + 255])), "it has an alpha channel"),
    "a transparent colour": (NORMALS, ".png", grey(COLOURS, transparency=(1, 2, 3)), "it has an alpha channel"),
    "grey vectors": (NORMALS, ".png", grey(NUMBERS), "red, green and blue of 8 bits each"),
    "deep vectors": (
        NORMALS,
        ".tif",
        lambda path: write_tiff(path, np.dstack([LEVELS] * 3), 1),
        "red, green and blue of 8 bits each",
    ),
    "deep equal channels": (
        HEIGHT,
        ".tif",
        lambda path: write_tiff(path, np.dstack([LEVELS] * 3), 1),
        "it is colour of 16 bits, which would be cut to 8",
    ),
    "transparent grey": (HEIGHT, ".png", grey(np.dstack([NUMBERS, NUMBERS])), "transparent pixels"),
    "several tensors": (
        HEIGHT,
        ".safetensors",
        lambda path: save_file({"a": LEVELS, "b": LEVELS}, path),
        "it holds 2 tensors, not one",
    ),
    "no tensor": (HEIGHT, ".safetensors", lambda path: save_file({}, path), "it holds 0 tensors, not one"),
    "bfloat16": (
        HEIGHT,
        ".safetensors",
        lambda path: save_torch({"a": torch.ones(6, 6, dtype=torch.bfloat16)}, path),
        "its values are of type 'BF16'; save them as float32",
    ),
    "complex numbers": (HEIGHT, ".safetensors", grey(LEVELS.astype(np.complex64)), "complex64, not real numbers"),
    "no safetensors": (HEIGHT, ".safetensors", lambda path: path.write_bytes(b"\x10"), "cannot read the map"),
    "an empty file": (NORMALS, ".png", lambda path: path.write_bytes(b""), "it is empty"),
    "a cut picture": (
        NORMALS,
        ".png",
        lambda path: path.write_bytes(write(path, COLOURS).read_bytes()[:-60]),
        "cannot read the map",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_map_of_its_kind_is_refused_with_the_name_of_its_file(tmp_path, what):
    item, ending, make, said = REFUSED[what]
    path = tmp_path / item.name / f"x{ending}"
    path.parent.mkdir()
    make(path)
    line = refusal(tmp_path, item)
    assert re.search(said, line)


def test_a_map_of_which_the_crop_leaves_nothing_is_refused(tmp_path):
    numbers, vectors = np.full((6, 18), 255, np.uint8), np.zeros((6, 18, 3))
    numbers[:, :6], numbers[:, 12:] = 1, 2
    vectors[:, :6], vectors[:, 12:] = (0, 0, 1), (0, 1, 0)
    write(tmp_path / "parts/x.png", numbers)
    write(tmp_path / "normals/x.npy", vectors)
    crop, whole = Geometry(18, 6, fit="crop"), Geometry(18, 6)
    assert "has no class at all" in refusal(tmp_path, PARTS, geometry=crop)
    assert "has no vector at all" in refusal(tmp_path, NORMALS, geometry=crop)
    labeler = FilesLabeler(tmp_path)
    labeler.set_properties(PROPERTIES)
    labeler.set_geometries({"x": whole})
    labeler.check(["x"], ["parts", "normals"], 6)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_vectors_of_an_image_that_is_turned_are_refused(tmp_path, orientation):
    write(tmp_path / "normals/x.npy", UNIT)
    line = refusal(tmp_path, NORMALS, geometry=Geometry(9, 6, orientation))
    assert "the EXIF data of its image turn that, and directions with it; save both upright" in line


@pytest.mark.parametrize(("empty", "images"), [(1, 2), (2, 4), (3, 7)])
def test_half_of_the_masks_may_have_one_value(tmp_path, empty, images):
    labeler = FilesLabeler(write_masks(tmp_path, empty, images))
    labeler.check(list("abcdefg"[:images]), ["saliency"], 6)
    labeler(torch.zeros(images, 3, 6, 6), list("abcdefg"[:images]), ["saliency"])


@pytest.mark.parametrize(("empty", "images"), [(1, 1), (2, 3), (3, 5), (4, 7), (5, 5)])
def test_more_than_half_may_not_and_all_of_them_are_counted(tmp_path, empty, images):
    labeler = FilesLabeler(write_masks(tmp_path, empty, images))
    with pytest.raises(UserError, match=rf"^{empty} of the {images} maps of saliency .*a\.png.* is all background"):
        labeler.check(list("abcdefg"[:images]), ["saliency"], 6)


def test_of_a_few_empty_masks_and_a_broken_one_the_broken_one_is_told(tmp_path):
    write_masks(tmp_path, 1, 4)
    (tmp_path / "saliency/d.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^1 of the 4 maps of saliency cannot be used: [^;]*d\.png: it is empty$"):
        FilesLabeler(tmp_path).check(list("abcd"), ["saliency"], 6)


def write_masks(folder: Path, empty: int, images: int) -> Path:
    for at, name in enumerate("abcdefg"[:images]):
        mask = np.zeros((6, 6), np.uint8)
        mask[:3] = 0 if at < empty else 1
        write(folder / f"saliency/{name}.png", mask)
    return folder


# How maps follow their pictures


@pytest.mark.parametrize("zoom", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(40, 90), (90, 40), (40, 41)])
def test_classes_and_vectors_are_cropped_as_their_picture(tmp_path, height, width, zoom):
    random = np.random.default_rng(1)
    numbers = random.integers(0, 3, (height, width)).astype(np.uint8)
    vectors = random.normal(size=(height, width, 2))
    (tmp_path / "images").mkdir()
    write(tmp_path / "images/x.png", numbers * 100)
    write(tmp_path / "parts/x.png", numbers.repeat(zoom, 0).repeat(zoom, 1))
    write(tmp_path / "flow/x.npy", vectors)
    pictures = ImageFileCollection(load_images(tmp_path / "images"), "crop")
    labeler = FilesLabeler(tmp_path)
    labeler.set_properties(PROPERTIES)
    labeler.set_geometries({"x": pictures.geometry(0)})
    labeler.check(["x"], ["parts", "flow"], 40)
    picture = pictures.picture(0, 40)
    found = labeler(picture[None], ["x"], ["parts", "flow"])
    top, left = (height - 40) // 2, (width - 40) // 2
    assert torch.equal(found["parts"][0], (picture[0] * 2.55).round())
    assert np.array_equal(found["parts"][0], numbers[top : top + 40, left : left + 40])
    assert found["flow"].shape == (1, 2, 40, 40)
    wanted = np.moveaxis(vectors[top : top + 40, left : left + 40], -1, 0)
    np.testing.assert_allclose(found["flow"][0], wanted, atol=1e-6)


def test_class_numbers_are_not_mixed_where_a_map_shrinks_and_vectors_are(tmp_path):
    write(tmp_path / "parts/x.npy", np.kron(np.eye(8) * 2, np.ones((3, 3))))
    planes = np.indices((24, 24)).astype(float)  # [2, 24, 24]: rows and columns
    write(tmp_path / "flow/x.npy", planes)
    labeler = FilesLabeler(tmp_path)
    labeler.set_properties(PROPERTIES)
    found = labeler(torch.zeros(1, 3, 8, 8), ["x"], ["parts", "flow"])
    assert torch.equal(found["parts"][0], 2 * torch.eye(8))
    middle = found["flow"][0, :, 2:6, 2:6].numpy()
    np.testing.assert_allclose(middle, np.indices((8, 8))[:, 2:6, 2:6] * 3 + 1, atol=1e-5)


# Through one labeler a property


class OfDefinition:
    """A labeler of the user's own, of maps of what the run defines."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def set_properties(self, properties):
        self.given.append(list(properties))
        self.classes = properties["parts"].classes

    def check(self, names, properties, image_size):
        assert len(self.classes) == 3

    def __call__(self, images, names, properties):
        return {name: torch.full((len(images), 4, 4), float(len(self.classes))) for name in properties}

    def fingerprint(self, name):
        return "-".join(self.classes)


@pytest.mark.parametrize("kept", [False, True], ids=["computed", "kept"])
def test_what_the_user_defines_reaches_each_labeler_before_it_is_asked(tmp_path, kept):
    made = OfDefinition()
    write(tmp_path / "maps/normals/x.npy", np.moveaxis(UNIT[:, :6], -1, 0))
    labeler = PerProperty(
        tmp_path / "kept" if kept else None, parts=lambda: made, normals=partial(FilesLabeler, tmp_path / "maps")
    )
    assert isinstance(labeler, DefinitionAwareLabeler)
    labeler.set_properties(PROPERTIES)
    assert made.given == []
    labeler.check(["x"], ["parts", "normals"], 6)
    found = labeler(torch.zeros(1, 3, 6, 6), ["x"], ["parts", "normals"])
    assert made.given == [list(PROPERTIES)]
    assert found["parts"].unique().tolist() == [3]
    np.testing.assert_allclose(found["normals"][0], np.moveaxis(UNIT[:, :6], -1, 0), atol=1e-6)
    assert labeler.fingerprint("parts") == "ground-leg-arm"


def test_a_property_of_nobody_has_no_kind(tmp_path):
    write(tmp_path / "parts/x.npy", NUMBERS[:, :6])
    with pytest.raises(UserError, match="unknown property 'parts'"):
        FilesLabeler(tmp_path).check(["x"], ["parts"], 6)


@pytest.mark.parametrize("kind", ["categorical", "continuous", "vector"])
def test_a_lossy_tiff_is_refused(tmp_path, kind):
    item = {
        "categorical": Categorical("x", classes=tuple(f"class {number}" for number in range(256))),
        "continuous": Continuous("x"),
        "vector": Vector("x", unit=False),
    }[kind]
    values = np.full((16, 16, 3), 200, np.uint8) if kind == "vector" else np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises((UserError, ValueError), match="compressed as jpeg"):
        read_map(tmp_path / "a.tif", item)
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw")
    assert read_map(tmp_path / "a.tif", item).shape[:2] == (16, 16)


def test_a_tiff_of_several_pages_is_refused(tmp_path):
    page = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises((UserError, ValueError), match="it holds 2 pictures"):
        read_map(tmp_path / "a.tif", Continuous("x"))

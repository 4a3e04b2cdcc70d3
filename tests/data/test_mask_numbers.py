"""Numbers of masks, whatever a program has done to their palettes."""

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from diffprobe.data.mask_folders import read_numbers
from diffprobe.errors import UserError
from tests.data.layouts import load_objects, some_scenes, voc_colours, write_davis, write_palette, write_voc

NUMBERS = np.random.default_rng(0).choice([0, 2, 4, 8, 11, 12, 15, 20, 255], (24, 32)).astype(np.uint8)


def official(numbers: np.ndarray = NUMBERS) -> Image.Image:
    picture = Image.fromarray(numbers, "P")
    picture.putpalette([value for colour in voc_colours() for value in colour])
    return picture


def other_palette(picture: Image.Image) -> Image.Image:
    """The same numbers in colours of no meaning."""
    picture.putpalette(np.random.default_rng(0).permutation(256 * 3).astype(np.uint8).tobytes())
    return picture


def reversed_palette(numbers: np.ndarray) -> Image.Image:
    """The same colours, with VOC's colour map the other way round."""
    picture = Image.fromarray(255 - numbers, "P")
    picture.putpalette([value for colour in reversed(voc_colours()) for value in colour])
    return picture


def davis_2017(numbers: np.ndarray) -> Image.Image:
    """DAVIS has VOC's first 22 colours; from there on its palette is grey."""
    picture = Image.fromarray(numbers, "P")
    greys = [(number,) * 3 for number in range(256)]
    picture.putpalette([value for colour in voc_colours()[:22] + greys[22:] for value in colour])
    return picture


def filled_up_palette(numbers: np.ndarray) -> Image.Image:
    """VOC's first four colours, and black for all others."""
    picture = Image.fromarray(numbers, "P")
    picture.putpalette([value for colour in voc_colours()[:4] for value in colour] + [0] * (252 * 3))
    return picture


def grey_palette(numbers: np.ndarray) -> Image.Image:
    picture = Image.fromarray(numbers, "P")
    picture.putpalette([number for number in range(256) for _ in range(3)])
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        official(),
        official().convert("RGB"),
        official().convert("RGBA"),
        official().convert("RGB").quantize(),
        official().convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE),
        reversed_palette(NUMBERS),
        davis_2017(NUMBERS),
        Image.fromarray(NUMBERS),
        grey_palette(NUMBERS),
        filled_up_palette(NUMBERS),
    ],
    ids=["VOC", "RGB", "RGBA", "re-quantised", "adaptive", "reversed", "DAVIS", "grey", "grey palette", "filled up"],
)
def test_the_numbers_are_those_that_the_colours_mean(tmp_path, picture):
    picture.save(tmp_path / "mask.png")
    assert np.array_equal(read_numbers(tmp_path / "mask.png"), NUMBERS)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (other_palette(official()), r"its palette is not VOC's: it has the colour \(\d+, \d+, \d+\), which VOC's"),
        (official().convert("RGB").resize((40, 30), Image.Resampling.BILINEAR), "its pixels are colours, and it has"),
        (Image.effect_noise((400, 400), 90).convert("RGB"), "its pixels are colours, and it has the colour"),
        (official().convert("LA"), "has pixels of kind LA; save it with VOC's palette, or as 8-bit grey"),
        (Image.new("RGBA", (4, 4), (128, 0, 0, 0)), "has pixels of kind RGBA"),
        (official().convert("1"), "has pixels of kind 1;"),
        (Image.fromarray(NUMBERS.astype(np.uint16) * 300), "has pixels of kind I;16"),
    ],
    ids=["other palette", "smoothed", "noise", "grey with alpha", "transparent", "1 bit", "16 bit"],
)
def test_a_mask_whose_numbers_cannot_be_known_is_refused(tmp_path, picture, message):
    picture.save(tmp_path / "mask.png")
    with pytest.raises(UserError, match=rf"the mask .*mask\.png:? {message}"):
        read_numbers(tmp_path / "mask.png")


def test_a_number_that_its_palette_lacks_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    official().save(path)
    content = path.read_bytes()
    start = content.index(b"PLTE") - 4  # a chunk is its length, its name, its content and a checksum
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    chunk = b"PLTE" + content[start + 8 : start + 8 + 4 * 3]
    short = (4 * 3).to_bytes(4, "big") + chunk + crc32(chunk).to_bytes(4, "big")
    path.write_bytes(content[:start] + short + content[end:])
    with pytest.raises(UserError, match="has pixels of the number 255, which its palette lacks"):
        read_numbers(path)


# In sets


def labels(root: Path) -> list[list[str]]:
    images, problems = load_objects("voc", root=root)
    assert problems == []
    return [[item.label for item in images.objects(row)] for row in range(len(images))]


def masks_of(root: Path, name: str) -> list[Path]:
    folders = ("SegmentationObject", "SegmentationClass")
    return [root / "VOCdevkit/VOC2012" / folder / f"{name}.png" for folder in folders]


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.convert("RGB").quantize(),
        lambda picture: picture.convert("RGB"),
        lambda picture: Image.fromarray(np.asarray(picture)),
    ],
    ids=["re-quantised", "RGB", "grey"],
)
def test_classes_of_voc_stay_when_their_masks_are_saved_otherwise(tmp_path, change):
    names = write_voc(tmp_path, some_scenes(3), 32)
    before = labels(tmp_path)
    for path in masks_of(tmp_path, names[0]):
        change(Image.open(path)).save(path)
    assert labels(tmp_path) == before


def test_masks_of_voc_that_were_turned_grey_are_refused(tmp_path):
    """A boat (4, dark blue) has the brightness 15 then, which is the number of a person."""
    (name,) = write_voc(tmp_path, some_scenes(1), 32)
    numbers = np.zeros((32, 32), np.uint8)
    numbers[8:24, 8:24] = 1
    for path, value in zip(masks_of(tmp_path, name), (1, 4), strict=True):
        write_palette(path, numbers * np.uint8(value))
        Image.open(path).convert("L").save(path)
    assert np.unique(np.asarray(Image.open(masks_of(tmp_path, name)[1]))).tolist() == [0, 15]
    with pytest.raises(UserError, match="its masks have the grey values 15, 38, the brightness of VOC's colours"):
        load_objects("voc", root=tmp_path)
    for path, value in zip(masks_of(tmp_path, name), (1, 15), strict=True):
        Image.fromarray(numbers * np.uint8(value)).save(path)
    assert labels(tmp_path) == [["person"]]


def test_a_mask_of_zero_and_255_is_refused_since_255_is_no_object(tmp_path):
    scenes = some_scenes(2)
    (name, _) = write_voc(tmp_path, scenes, 16)
    write_davis(tmp_path, {"one": scenes, "two": scenes}, 16)
    mask = np.where(np.eye(16) > 0, np.uint8(255), np.uint8(0))
    Image.fromarray(mask).save(masks_of(tmp_path, name)[0])
    Image.fromarray(mask).save(tmp_path / "Annotations/480p/two/00000.png")
    for kind in ("voc", "davis"):
        with pytest.raises(UserError, match="has only the values 0 and 255, and 255 is ignored"):
            load_objects(kind, root=tmp_path)
    assert load_objects("davis", root=tmp_path, on_error="skip")[0].names == ["two/00001"]


# Files of DAVIS


def test_frames_and_masks_of_davis_that_have_no_partner_are_named(tmp_path):
    scenes = some_scenes(1) * 6
    write_davis(tmp_path, {"train": scenes[:1], "judo": scenes}, 16)
    pictures, masks = (tmp_path / kind / "480p/judo" for kind in ("JPEGImages", "Annotations"))
    (pictures / "00001.jpg").rename(pictures / "00001.JPG")
    (masks / "00002.png").unlink()
    (pictures / "00003.jpg").rename(pictures / "frame3.jpg")
    (pictures / "._00004.jpg").touch()
    (pictures / "5.jpg").touch()
    (pictures / "\u00b2.jpg").touch()
    images, problems = load_objects("davis", root=tmp_path, on_error="skip")
    assert images.names == ["judo/00000", "judo/00004"]
    reasons = {problem.image: problem.reason for problem in problems}
    assert reasons["judo/00001"].endswith("judo/00001.jpg, but 00001.JPG")
    assert "there is no mask" in reasons["judo/00002"]
    assert "there is no image" in reasons["judo/00003"]
    assert reasons["judo/frame3"] == reasons["judo/\u00b2"] == "its name is not the number of a frame"
    assert reasons["judo/00005"] == reasons["judo/5"] == "2 files are frame 5"
    assert len(problems) == 7


def test_frames_with_another_ending_are_named(tmp_path):
    write_davis(tmp_path, {"train": some_scenes(1), "judo": some_scenes(1)}, 16)
    (tmp_path / "Annotations/480p/judo/00000.png").unlink()
    picture = tmp_path / "JPEGImages/480p/judo/00000.jpg"
    picture.rename(picture.with_suffix(".jpeg"))
    with pytest.raises(UserError, match=r"there is no frame in .*judo, such as 00000\.jpg, but 00000\.jpeg"):
        load_objects("davis", root=tmp_path)

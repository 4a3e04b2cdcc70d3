"""Kept maps are read instead of computed, and only maps of the same labeler, name and picture; damaged ones never."""

from pathlib import Path

import pytest
import torch

from diffprobe.errors import UserError
from diffprobe.labels import labeler as cache
from diffprobe.labels.labeler import CachedLabeler
from tests.processes import FORK

NAMES = ["a", "b/c", "prompt_1_seed_2"]


class Brightness:
    """A labeler that remembers what it was asked."""

    def __init__(self, version="1"):
        self.version, self.asked = version, []

    def check(self, names, properties, image_size):
        if "shading" in properties:
            raise UserError("no shading here")

    def __call__(self, images, names, properties):
        self.asked += [(name, image) for name in properties for image in names]
        return {name: images.mean(1) * (1 if name == "depth" else 2) for name in properties}

    def fingerprint(self, name):
        return self.version.ljust(64, "0")


@pytest.fixture
def images():
    return torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(0))


def label(folder, images, names=NAMES, properties=("depth",), version="1"):
    """The maps, and what the labeler was asked."""
    labeler = Brightness(version)
    return CachedLabeler(labeler, folder)(images, names, properties), labeler.asked


def test_maps_are_computed_once_and_come_back_bit_for_bit(tmp_path, images):
    first, asked = label(tmp_path, images, properties=["depth", "saliency"])
    assert sorted(asked) == sorted((name, image) for name in ("depth", "saliency") for image in NAMES)
    again, asked = label(tmp_path, images, properties=["depth", "saliency"])
    assert asked == []
    for name, values in Brightness()(images, NAMES, ["depth", "saliency"]).items():
        assert torch.equal(first[name], values)
        assert torch.equal(again[name], values)


@pytest.mark.parametrize("map_of", [lambda image: image * 2 - 1, lambda image: (image[0] * 4).floor() - 1])
def test_vectors_and_class_numbers_come_back_bit_for_bit(tmp_path, images, map_of):
    """[channels, height, width], and whole numbers from -1 on."""

    class Other(Brightness):
        def __call__(self, images, names, properties):
            self.asked += names
            return {name: torch.stack([map_of(image) for image in images]) for name in properties}

    expected = torch.stack([map_of(image) for image in images])
    for asked in (NAMES, []):
        labeler = Other()
        assert torch.equal(CachedLabeler(labeler, tmp_path)(images, NAMES, ["mine"])["mine"], expected)
        assert labeler.asked == asked


def test_only_missing_images_are_computed_and_the_order_is_that_of_the_images(tmp_path, images):
    label(tmp_path, images[1:2], NAMES[1:2])
    maps, asked = label(tmp_path, images, NAMES)
    assert asked == [("depth", "a"), ("depth", "prompt_1_seed_2")]
    assert torch.equal(maps["depth"], images.mean(1))
    maps, asked = label(tmp_path, images.flip(0), NAMES[::-1])
    assert asked == []
    assert torch.equal(maps["depth"], images.mean(1).flip(0))


def test_another_picture_name_labeler_or_property_is_another_map(tmp_path, images):
    one, name = images[:1], NAMES[:1]
    label(tmp_path, one, name)
    other = one.clone()
    other[0, 0, 0, 0] += 2 / 255 if other[0, 0, 0, 0] < 0.5 else -2 / 255
    assert label(tmp_path, other, name)[1] == [("depth", "a")]
    assert label(tmp_path, one.reshape(1, 3, 5, 6), name)[1] == [("depth", "a")]
    assert label(tmp_path, one, ["another"])[1] == [("depth", "another")]
    assert label(tmp_path, one, name, version="2")[1] == [("depth", "a")]
    assert label(tmp_path, one, name, ["saliency"])[1] == [("saliency", "a")]
    assert label(tmp_path, one, name)[1] == []


def test_the_last_bits_of_a_float_make_no_other_picture(tmp_path):
    picture = torch.full((1, 3, 4, 4), 100 / 255)
    label(tmp_path, picture, ["a"])
    assert label(tmp_path, picture + 1e-6, ["a"])[1] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:-8] + bytes(8),
        lambda data: b"nonsense" * 40,
    ],
    ids=["empty", "stub", "half", "one byte short", "zeros at the end", "other bytes"],
)
def test_a_damaged_file_is_computed_again_and_mended(tmp_path, images, damage):
    label(tmp_path, images)
    victim = sorted(tmp_path.rglob("*.safetensors"))[0]
    victim.write_bytes(damage(victim.read_bytes()))
    maps, asked = label(tmp_path, images)
    assert len(asked) == 1
    assert torch.equal(maps["depth"], images.mean(1))
    assert label(tmp_path, images)[1] == []


@pytest.mark.parametrize(("was", "is_now"), [(b"[6,5]", b"[5,6]"), (b'"F32"', b'"I32"')])
def test_the_same_bytes_under_another_header_are_not_believed(tmp_path, images, was, is_now):
    label(tmp_path, images[:1], NAMES[:1])
    (kept,) = tmp_path.rglob("*.safetensors")
    whole = kept.read_bytes()
    assert was in whole
    kept.write_bytes(whole.replace(was, is_now))
    maps, asked = label(tmp_path, images[:1], NAMES[:1])
    assert len(asked) == 1
    assert torch.equal(maps["depth"], images[:1].mean(1))


def test_a_folder_in_place_of_a_map_is_named(tmp_path, images):
    label(tmp_path, images[:1], NAMES[:1])
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.unlink()
    kept.mkdir()
    with pytest.raises(UserError, match="cannot keep a label map in"):
        label(tmp_path, images[:1], NAMES[:1])


def test_a_file_of_another_labeler_under_this_name_is_not_believed(tmp_path, images):
    label(tmp_path, images[:1], ["a"])
    label(tmp_path, images[:1] * 0, ["a"])
    one, other = sorted(tmp_path.rglob("*.safetensors"))
    one.write_bytes(other.read_bytes())
    other.unlink()
    maps, asked = label(tmp_path, torch.cat([images[:1], images[:1] * 0]), ["a", "a"])
    assert len(asked) == 2
    assert torch.equal(maps["depth"], torch.stack([images[0].mean(0), torch.zeros(6, 5)]))


def test_a_run_that_is_killed_loses_one_chunk_at_most_and_leaves_nothing_half_written(tmp_path, images, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 1)

    class Killed(Brightness):
        def __call__(self, images, names, properties):
            if names == ["prompt_1_seed_2"]:
                raise KeyboardInterrupt
            return super().__call__(images, names, properties)

    with pytest.raises(KeyboardInterrupt):
        CachedLabeler(Killed(), tmp_path)(images, NAMES, ["depth"])
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".safetensors"] * 2
    assert label(tmp_path, images)[1] == [("depth", "prompt_1_seed_2")]


def test_a_write_that_fails_leaves_no_file_and_says_where(tmp_path, images, monkeypatch):
    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:20])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="no space left"):
        label(tmp_path, images)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_checks_are_the_labelers_and_the_folders(tmp_path):
    with pytest.raises(UserError, match="no shading"):
        CachedLabeler(Brightness(), tmp_path / "new" / "folder").check(NAMES, ["shading"], 64)
    assert list(tmp_path.iterdir()) == []  # nothing is made before there is a map
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no folder that can be written to"):
        CachedLabeler(Brightness(), tmp_path / "file" / "maps").check(NAMES, ["depth"], 64)


def label_in_rounds(folder, start):
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    names = [str(number) for number in range(40)]
    for number in range(5):
        start.wait()
        maps = CachedLabeler(Brightness(), folder / str(number))(images, names, ["depth"])["depth"]
        assert torch.equal(maps, images.mean(1))


def test_two_processes_may_share_a_folder(tmp_path):
    start = FORK.Barrier(2)  # of each round
    processes = [FORK.Process(target=label_in_rounds, args=(tmp_path, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 5 * 40
    assert list(tmp_path.rglob(".*")) == []

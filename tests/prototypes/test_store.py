"""Kept prototypes that are damaged, or of something else, are found and computed again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffprobe.activations.activations import LayerGroup
from diffprobe.activations.sources import Noised
from diffprobe.data.objects import ObjectImages
from diffprobe.data.scenes import load_scenes
from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import Prototypes, as_group, collect_prototypes
from diffprobe.prototypes.pooling import MaskResizing
from diffprobe.prototypes.store import PrototypeCache, PrototypeKey
from tests.tiny import tiny_layers

SHARDS = 2  # of two images each


@pytest.fixture(scope="module")
def scenes() -> ObjectImages:
    return load_scenes(count=4)[0]


@pytest.fixture(scope="module")
def inputs(tiny_backbone) -> list[LayerGroup]:
    layers = tiny_layers("resnet&stage=decoder")
    return [as_group(layers[0]), as_group(layers[-1])]


@pytest.fixture(scope="module")
def whole(tiny_backbone, scenes, inputs, tmp_path_factory) -> tuple[Path, list[torch.Tensor]]:
    """A folder of prototypes, and the matrices of both inputs."""
    folder = tmp_path_factory.mktemp("stores")
    found = collected(tiny_backbone, scenes, inputs, folder)
    return folder, [found.matrix(group, 0) for group in inputs]


@pytest.fixture
def stores(whole, tmp_path: Path) -> Path:
    return shutil.copytree(whole[0], tmp_path / "stores")


def collected(backbone, images, inputs, folder: Path, **how) -> Prototypes:
    source = Noised(images, [0.0], "off")
    how = {"resizing": MaskResizing(), "images_per_shard": 2, **how}
    return collect_prototypes(backbone, source, images, inputs, [0], folder=folder, **how)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def flip_data(paths: list[Path]) -> None:
    data = bytearray(paths[1].read_bytes())
    data[-6] ^= 0x40
    paths[1].write_bytes(data)


def flip_header(paths: list[Path]) -> None:
    data = bytearray(paths[1].read_bytes())
    data[data.index(b'"shape":[') + 9] ^= 0x01
    paths[1].write_bytes(data)


DAMAGE = {
    "a flipped bit of the numbers": flip_data,
    "a flipped bit of the header": flip_header,
    "cut short": lambda paths: paths[1].write_bytes(paths[1].read_bytes()[:-50]),
    "empty": lambda paths: paths[1].write_bytes(b""),
    "the shard of other images": lambda paths: paths[1].write_bytes(paths[0].read_bytes()),
    "a folder": lambda paths: (paths[1].unlink(), paths[1].mkdir()),
    "missing": lambda paths: paths[1].unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_mended(tiny_backbone, scenes, inputs, whole, stores, damage) -> None:
    DAMAGE[damage](files(stores))
    told: list[str] = []
    found = collected(tiny_backbone, scenes, inputs, stores, log=told.append)
    for group, matrix in zip(inputs, whole[1], strict=True):
        assert torch.equal(found.matrix(group, 0), matrix)
    assert found.evaluations == 2  # of the images of one shard
    assert len(files(stores)) == SHARDS
    kept = list(stores.rglob("*.damaged"))
    if damage == "missing":
        assert not kept
    else:
        assert len(kept) == 1
        assert any("computed again" in line and kept[0].name in line for line in told)
    assert collected(tiny_backbone, scenes, inputs, stores).evaluations == 0


def test_a_shard_of_another_model_under_this_name_is_not_believed(
    tiny_backbone, scenes, inputs, whole, stores, tmp_path
) -> None:
    other = collected(tiny_backbone, scenes, inputs, tmp_path / "other", resizing=MaskResizing(hard=True))
    assert not torch.equal(other.matrix(inputs[0], 0), whole[1][0])
    for mine, theirs in zip(files(stores), files(tmp_path / "other"), strict=True):
        mine.write_bytes(theirs.read_bytes())
    found = collected(tiny_backbone, scenes, inputs, stores)
    assert torch.equal(found.matrix(inputs[0], 0), whole[1][0])
    assert found.evaluations == 4


def test_what_is_damaged_after_it_was_found_whole_is_named(tiny_backbone, scenes, inputs, stores) -> None:
    found = collected(tiny_backbone, scenes, inputs, stores)
    flip_data(files(stores))
    with pytest.raises(UserError, match=r"images_000002-000003_.*is damaged.*checksum.*run the same command again"):
        [found.matrix(group, 0) for group in inputs]


def test_an_edited_description_of_a_folder_is_written_again(tiny_backbone, scenes, inputs, stores) -> None:
    (provenance,) = stores.rglob("made_of.json")
    text = provenance.read_text()
    provenance.write_text("{}")
    assert collected(tiny_backbone, scenes, inputs, stores).evaluations == 0
    assert provenance.read_text() == text


def test_files_without_checksums_are_not_believed(tmp_path) -> None:
    unit = PrototypeKey("a", (2, 2), 0.0)
    kept = PrototypeCache(tmp_path, "f" * 64, images=2, images_per_shard=2)
    save_file({unit.name: torch.zeros(2, 3)}, tmp_path / "images_000000-000001_0.safetensors")
    assert kept.missing(kept.shards[0], [unit]) == [unit]
    kept.write(kept.shards[0], {unit: torch.ones(2, 3)})
    assert kept.missing(kept.shards[0], [unit]) == []
    assert torch.equal(kept.read(unit), torch.ones(2, 3))

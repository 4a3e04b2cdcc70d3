"""A damaged shard is named, never served, and never lost."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from diffprobe.activations.__main__ import main
from diffprobe.activations.store.folder import create_store
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.errors import UserError
from tests.activations.store.made_up import LARGE, fill, filled, made_up_manifest, shard_contents

SECOND = "images-000003-000005.safetensors"


def spoil_header(path, old, new):
    data = path.read_bytes()
    assert data.count(old) >= 1
    path.write_bytes(data.replace(old, new, 1))


def flip_last_byte(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


DAMAGES = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), "bytes, not"),
    "truncated in its header": (lambda path: os.truncate(path, 100), "cut short"),
    "empty": (lambda path: os.truncate(path, 0), "unreadable header"),
    "no json": (lambda path: spoil_header(path, b"{", b"["), "unreadable header"),
    "of other images": (lambda path: spoil_header(path, b"image_4", b"image_1"), "other images"),
    "of another type": (lambda path: spoil_header(path, b'"F16"', b'"I16"'), "other tensors"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_named_set_aside_and_made_anew(tmp_path, damage, capsys):
    spoil, said = DAMAGES[damage]
    store = filled(tmp_path)
    undisturbed = shard_contents(store)
    path = tmp_path / "shards" / SECOND
    spoil(path)
    spoilt = path.read_bytes()

    with pytest.raises(UserError, match=rf"1 damaged shards in .*{SECOND}, which .*({said})"):
        StoredActivations(store)
    assert main([str(tmp_path)]) == 1
    assert SECOND in capsys.readouterr().out
    assert path.read_bytes() == spoilt

    fill(store)
    after = shard_contents(store)
    assert after.pop(f"{SECOND}.damaged") == spoilt
    assert after == undisturbed
    assert main([str(tmp_path), "--verify"]) == 0


def test_a_shard_of_another_store_is_not_believed(tmp_path):
    store = filled(tmp_path / "one")
    other = filled(tmp_path / "other", model={"name": "made_up", "denoiser": "beef"})
    shutil.copy(other.shards[1].path, store.shards[1].path)
    assert list(store.survey().damaged.values()) == ["belongs to another store: its fingerprint differs"]


def test_wrong_bytes_are_found_by_verification_and_never_served(tmp_path, capsys):
    store = filled(tmp_path, extras=[])
    flip_last_byte(tmp_path / "shards" / SECOND)  # of the last tensor, the small layer at step 3, image 5
    assert main([str(tmp_path)]) == 0
    capsys.readouterr()
    assert main([str(tmp_path), "--verify"]) == 1
    assert (
        f"{SECOND} 1 wrong checksums, first up_blocks.1.resnets.0/step_3 of image 'image_5'" in capsys.readouterr().out
    )

    activations = StoredActivations(store)
    assert torch.isfinite(activations.values[LARGE.name][:, :]).all()
    with pytest.raises(UserError, match=rf"{SECOND} is damaged at .*resnets.0/step_3 of image 'image_5'"):
        activations.values["up_blocks.1.resnets.0"][1, [0, 5]]


def test_a_file_that_shrinks_while_it_is_open_is_an_error(tmp_path):
    store = filled(tmp_path)
    activations = StoredActivations(store)
    activations.values[LARGE.name][:, :]
    os.truncate(store.shards[0].path, 1000)
    with pytest.raises(UserError, match="is damaged"):
        activations.values[LARGE.name][:, :]


def test_a_second_damage_does_not_overwrite_the_first(tmp_path):
    store = filled(tmp_path)
    for size in (10, 20):
        os.truncate(tmp_path / "shards" / SECOND, size)
        fill(store)
    aside = {path.name: path.stat().st_size for path in (tmp_path / "shards").glob("*.damaged")}
    assert aside == {f"{SECOND}.damaged": 10, f"{SECOND}.1.damaged": 20}


def test_the_command_says_what_a_store_is(tmp_path, capsys):
    store = create_store(tmp_path, made_up_manifest())
    assert main([str(tmp_path)]) == 0
    assert "shards: 0 of 3 finished, 3 missing, 0 damaged" in capsys.readouterr().out
    fill(store)
    assert main([str(tmp_path), "--verify"]) == 0
    printed = capsys.readouterr().out
    for said in (
        "model: name made_up, denoiser f00d",
        "images: 7, image_0 to image_6",
        "steps: 0, 3",
        f"{LARGE.name}  3 x 4 x 5  1.68 KB",
        "extra/latents  1 x 2 x 2 float32  224 B",
        "shards: 3 of 3 finished, 0 missing, 0 damaged",
        "0 B still to be written",
        "checksums: 3 shards read and good",
    ):
        assert said in printed
    assert main([str(tmp_path / "nothing")]) == 1
    assert "no store of activations" in capsys.readouterr().err

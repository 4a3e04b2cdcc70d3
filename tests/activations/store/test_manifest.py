"""A manifest says what a store is, and two that differ in what determines activations are told apart."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from diffprobe.activations.store.folder import MANIFEST, create_store, find_store, open_store
from diffprobe.activations.store.manifest import Extra, manifest_from_json
from diffprobe.errors import UserError
from tests.activations.store.made_up import IMAGES, LARGE, SMALL, made_up_manifest


def test_what_is_written_is_what_is_read():
    manifest = made_up_manifest(steps=range(2), trajectory={"kind": "images", "size": (3, 4)})
    read = manifest_from_json(manifest.to_json(), "here")
    assert read.fingerprint == manifest.fingerprint
    assert read.layers == [LARGE, SMALL]
    assert read.extras == manifest.extras
    assert read.to_json() == manifest.to_json()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"name": "made_up", "denoiser": "beef"}}, r'model\.denoiser is "f00d" there, "beef" here'),
        ({"trajectory": {"kind": "generation", "sampling_steps": 4}}, r"trajectory\.guidance is 7\.5 there, null here"),
        ({"images": IMAGES[:5]}, "images: 7 there, 5 here"),
        ({"images": [{**IMAGES[0], "prompt": "a cat"}, *IMAGES[1:]]}, 'images: 1 of 7 differ.*"prompt 0".*"a cat"'),
        ({"layers": [LARGE, replace(SMALL, channels=4)]}, "layers: 1 of 2 differ"),
        ({"steps": [0, 2]}, r"steps is \[0, 3\] there, \[0, 2\] here"),
        ({"timesteps": [999.0, 2.0]}, "timesteps"),
        ({"dtype": "bfloat16"}, 'dtype is "float16" there, "bfloat16" here'),
        ({"extras": [Extra("image", (3, 2, 2), "uint8")]}, "extras"),
    ],
)
def test_a_store_of_other_activations_is_refused_and_what_differs_named(tmp_path, changes, said):
    create_store(tmp_path, made_up_manifest())
    before = (tmp_path / MANIFEST).read_bytes()
    for enter in (create_store, find_store, open_store):
        with pytest.raises(UserError, match=said) as caught:
            enter(tmp_path, made_up_manifest(**changes))
        assert "Give another folder" in str(caught.value)
    assert (tmp_path / MANIFEST).read_bytes() == before


def test_the_model_may_move_and_shards_may_be_cut_otherwise(tmp_path):
    create_store(tmp_path, made_up_manifest())
    moved = made_up_manifest(model={"name": "elsewhere", "denoiser": "f00d"}, images_per_shard=2)
    store = create_store(tmp_path, moved)
    assert store.manifest.images_per_shard == 3
    assert store.manifest.model["name"] == "made_up"


def test_other_library_versions_are_noted_and_not_refused(tmp_path):
    old = made_up_manifest()
    store = create_store(tmp_path, replace(old, versions={**old.versions, "torch": "1.0"}))
    assert len(store.notes) == 1
    assert "made with torch 1.0" in store.notes[0]
    assert create_store(tmp_path / "new", old).notes == []


def test_finding_a_store_writes_nothing(tmp_path):
    assert len(find_store(tmp_path / "none", made_up_manifest()).survey().missing) == 3
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": []}, "at least one image"),
        ({"images": [IMAGES[0], IMAGES[0]]}, "'image_0' occurs twice"),
        ({"dtype": "float64"}, "cannot store numbers as 'float64'"),
        ({"dtype": "uint8"}, "cannot store numbers as 'uint8'"),
        ({"images_per_shard": 0}, "0 images per shard"),
    ],
)
def test_what_cannot_be_stored_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        made_up_manifest(**changes)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[: len(text) // 2], "is not the manifest"),
        (lambda text: "[1]", "is not the manifest"),
        (lambda text: text.replace("activations/1", "activations/9"), "has format 'diffprobe-activations/9'"),
        (lambda text: text.replace('"prompt 3"', '"prompt 4"'), "was changed after it was written"),
        (lambda text: json.dumps({**json.loads(text), "layers": [{"name": "x"}]}), "is not the manifest"),
    ],
)
def test_spoilt_manifests_are_refused(tmp_path, spoil, said):
    create_store(tmp_path, made_up_manifest())
    path = tmp_path / MANIFEST
    path.write_text(spoil(path.read_text()))
    with pytest.raises(UserError, match=said):
        open_store(tmp_path)


def test_a_folder_without_a_store_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no store of activations in {tmp_path}"):
        open_store(tmp_path)

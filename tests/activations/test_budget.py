"""The plan counts what a run will do, what is there already, and refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffprobe.activations.budget import Plan, check_memory, plan_live, plan_run, plan_stores
from diffprobe.activations.extraction import extract
from diffprobe.activations.sources import Generation
from diffprobe.activations.store.manifest import describe
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from tests.tiny import tiny_layers

SOURCE = Generation([Prompt("a cat", seed, f"image_{seed}") for seed in range(3)], sampling_steps=3)
CONTROL = {"control": "permuted", "seed": 0}


@pytest.fixture(scope="module")
def layers():
    return tiny_layers("self_attention&stage=decoder")[-2:]


@pytest.fixture(scope="module")
def manifest(tiny_backbone, layers):
    return describe(tiny_backbone, SOURCE, layers, [0, 2], "float16", 2, identified=True)


def test_every_image_and_step_is_one_evaluation_and_one_more_for_each_control(manifest):
    assert plan_run(manifest, 3, [], 2).evaluations == 9
    assert plan_run(manifest, 3, [CONTROL], 2).evaluations == 9 + 6


def test_bytes_are_those_of_the_kept_tensors(manifest, layers):
    plan = plan_run(manifest, 3, [CONTROL], 2)
    by_layer = {layer.name: 2 * 3 * 2 * layer.channels * layer.tokens * 2 for layer in layers}
    assert plan.layers == by_layer
    latents, image = 4 * 16 * 16 * 4, 3 * 128 * 128 * 4
    assert plan.bytes == sum(by_layer.values()) + 3 * (2 * 2 * latents + image)


def test_without_a_store_memory_does_not_grow_with_the_images(manifest, layers):
    plan = plan_live(manifest, 3, [CONTROL], 2, batch_size=2)
    assert plan.evaluations == plan_run(manifest, 3, [CONTROL], 2).evaluations
    others = [{**image, "id": f"{image['id']}_again"} for image in manifest.images]
    more = replace(manifest, images=[*manifest.images, *others])
    assert plan_live(more, 3, [CONTROL], 2, batch_size=2).bytes == plan.bytes
    sums = {layer.name: 2 * 2 * layer.channels**2 * 8 for layer in layers}
    batch = {layer.name: 2 * 2 * 2 * layer.channels * layer.tokens * 4 for layer in layers}
    assert plan.layers == {name: sums[name] + batch[name] for name in sums}
    assert plan.lines()[-1] == "held at a time; no activation is kept"


def test_what_is_stored_needs_no_work_and_no_room(tiny_backbone, layers, manifest, tmp_path):
    before = plan_stores(manifest, 3, [CONTROL], 2, tmp_path)
    assert (before.evaluations, before.remaining) == (15, before.bytes)
    extract(tiny_backbone, SOURCE, layers, [0, 2], stores=tmp_path, images_per_shard=2)
    after = plan_stores(manifest, 3, [CONTROL], 2, tmp_path)
    assert after.evaluations == 6  # the control's
    assert 0 < after.remaining < before.remaining
    assert [folder.exists() for folder in after.folders] == [True, False]


def test_what_does_not_fit_is_refused_before_work(manifest, tmp_path):
    plan = plan_run(manifest, 3, [], 2)
    check_memory(plan)
    with pytest.raises(UserError, match=r"need 1e\+03 TB of memory"):
        check_memory(replace(plan, bytes=10**15))
    huge = replace(manifest, layers=[replace(layer, channels=10**12) for layer in manifest.layers])
    with pytest.raises(UserError, match="are free there"):
        plan_stores(huge, 3, [], 2, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plan_reads_as_lines():
    lines = Plan(2, 30, {"one": 1500, "two": 20}, 2000, 500, []).lines()
    assert lines[0] == "2 images, 30 network evaluations, 2 KB to keep, 500 B of it still to be made"
    assert [line.split() for line in lines[1:3]] == [["1.5", "KB", "one"], ["20", "B", "two"]]

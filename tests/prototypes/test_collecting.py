"""Prototypes are pooled once, whatever the batch, and found again by whoever asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffprobe.activations.activations import LayerGroup, concatenate
from diffprobe.activations.sources import ImageToImage, Noised
from diffprobe.data.image_changes import ChangedImages
from diffprobe.data.objects import ObjectImages
from diffprobe.data.scenes import SceneObjects, load_scenes
from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import (
    MaskResizing,
    Prototypes,
    as_group,
    collect_prototypes,
    masked_means,
    resize_masks,
    save_prototypes,
)
from tests.tiny import tiny_layers

SOFT = MaskResizing()


@pytest.fixture(scope="module")
def scenes() -> ObjectImages:
    return load_scenes(count=5)[0]


@pytest.fixture(scope="module")
def inputs(tiny_backbone) -> list[LayerGroup]:
    layers = tiny_layers("resnet&stage=decoder")
    return [as_group(layers[0]), as_group(layers[-1]), LayerGroup("both", (layers[0], layers[-1]))]


def collected(backbone, images, inputs, folder: Path, at=(0.0,), noise="off", steps=None, **how) -> Prototypes:
    source = Noised(images, list(at), noise)
    steps = list(range(len(at))) if steps is None else steps
    how = {"resizing": SOFT, **how}
    return collect_prototypes(backbone, source, images, inputs, steps, folder=folder, **how)


def test_prototypes_are_masked_means_of_the_activations_of_their_image(tiny_backbone, scenes, inputs, tmp_path) -> None:
    found = collected(tiny_backbone, scenes, inputs, tmp_path, batch_size=2)
    expected: dict[str, list] = {group.name: [] for group in inputs}
    layers = [group.name for group in inputs[:2]]
    for row in range(len(scenes)):
        source = Noised(scenes, [0.0], "off")
        (step,) = source.run(tiny_backbone, source.batch([row], tiny_backbone.image_size), layers, [0])
        for group in inputs:
            whole = concatenate(group, step.activations)[0]
            weights = resize_masks(scenes.masks(row), tuple(whole.shape[-2:]), SOFT)
            expected[group.name].append(masked_means(whole, weights))
    for group in inputs:
        matrix = found.matrix(group, 0)
        assert matrix.shape == (len(found.objects), group.layer.channels)
        assert torch.allclose(matrix, torch.cat(expected[group.name]), rtol=1e-4, atol=1e-5)
    assert [row.object for row in found.objects] == [each.name for row in range(5) for each in scenes.objects(row)]
    assert [scenes.names[row] for row in found.images] == [row.image for row in found.objects]


def test_what_is_kept_is_not_computed_again_and_what_lacks_is_added(tiny_backbone, scenes, inputs, tmp_path) -> None:
    first = collected(tiny_backbone, scenes, inputs[:1], tmp_path)
    again = collected(tiny_backbone, scenes, inputs[:1], tmp_path)
    more = collected(tiny_backbone, scenes, inputs[:2], tmp_path)
    later = collected(tiny_backbone, scenes, inputs[:2], tmp_path, at=(0.0, 300.0), noise="seeded")
    assert [each.evaluations for each in (first, again, more, later)] == [5, 0, 5, 10]
    assert torch.equal(first.matrix(inputs[0], 0), more.matrix(inputs[0], 0))
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2  # noise makes other prototypes


def test_a_timestep_is_evaluated_once_by_all_jobs_of_a_sweep(tiny_backbone, scenes, inputs, tmp_path) -> None:
    jobs = [
        collected(tiny_backbone, scenes, [group], tmp_path, at=at, noise="seeded", extra_inputs=inputs)
        for at in ((100.0,), (100.0, 500.0), (500.0,))
        for group in inputs
    ]
    assert sum(job.evaluations for job in jobs) == 2 * len(scenes)


def test_batches_and_shards_make_no_difference(tiny_backbone, scenes, inputs, tmp_path) -> None:
    one = collected(tiny_backbone, scenes, inputs, tmp_path / "one", batch_size=5)
    other = collected(tiny_backbone, scenes, inputs, tmp_path / "other", batch_size=2, images_per_shard=3)
    for group in inputs:
        assert torch.allclose(one.matrix(group, 0), other.matrix(group, 0), rtol=1e-4, atol=1e-5)


def test_an_interrupted_pass_goes_on_at_its_last_shard(tiny_backbone, scenes, inputs, tmp_path) -> None:
    class Breaks(SceneObjects):
        def picture(self, row: int, size: int) -> torch.Tensor:
            if row == 3:
                raise KeyboardInterrupt
            return super().picture(row, size)

    breaking = Breaks([int(name.removeprefix("scene-")) for name in scenes.names])
    breaking._objects = [scenes.objects(row) for row in range(len(scenes))]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        collected(tiny_backbone, breaking, inputs, tmp_path, images_per_shard=2, batch_size=2)
    resumed = collected(tiny_backbone, scenes, inputs, tmp_path, images_per_shard=2, batch_size=2)
    whole = collected(tiny_backbone, scenes, inputs, tmp_path / "whole", images_per_shard=2, batch_size=2)
    assert resumed.evaluations == 3
    for group in inputs:
        assert torch.equal(resumed.matrix(group, 0), whole.matrix(group, 0))
    assert not list(tmp_path.rglob("*.tmp"))


def test_masks_and_objects_and_changes_have_prototypes_of_their_own(tiny_backbone, scenes, inputs, tmp_path) -> None:
    collected(tiny_backbone, scenes, inputs[:1], tmp_path)
    collected(tiny_backbone, scenes, inputs[:1], tmp_path, resizing=MaskResizing(hard=True))
    collected(tiny_backbone, ChangedImages(scenes, "flip"), inputs[:1], tmp_path)
    fewer = load_scenes(count=5, min_area=0.08)[0]
    found = collected(tiny_backbone, fewer, inputs[:1], tmp_path)
    assert len(found.objects) == len(found.matrix(inputs[0], 0))
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 4


def test_objects_that_vanish_are_named_and_have_no_prototype(tiny_backbone, scenes, inputs, tmp_path) -> None:
    gone = ChangedImages(scenes, "shift", 1.0)
    found = collected(tiny_backbone, gone, inputs[:1], tmp_path)
    assert found.vanished[inputs[0].layer.height, inputs[0].layer.width] == [row.object for row in found.objects]
    assert found.matrix(inputs[0], 0).isnan().all()


def test_a_walk_is_pooled_at_the_wanted_steps(tiny_backbone, scenes, inputs, tmp_path) -> None:
    source = ImageToImage(scenes, 0.7, 3)
    steps = sorted(source.timesteps(tiny_backbone))
    found = collect_prototypes(
        tiny_backbone, source, scenes, inputs[:1], [steps[-1]], resizing=SOFT, folder=tmp_path, batch_size=3
    )
    assert found.timesteps == {steps[-1]: source.timesteps(tiny_backbone)[steps[-1]]}
    assert found.matrix(inputs[0], steps[-1]).isfinite().all()


def test_steps_of_one_timestep_are_not_mixed(tiny_backbone, scenes, inputs, tmp_path, monkeypatch) -> None:
    source = ImageToImage(scenes, 0.7, 3)
    monkeypatch.setattr(source, "timesteps", lambda backbone: {1: 7.0, 2: 7.0, 3: 0.0})
    given = (tiny_backbone, source, scenes, inputs[:1])
    with pytest.raises(UserError, match="steps 2 and 1 are both at timestep 7, by which prototypes are kept"):
        collect_prototypes(*given, [2, 3], resizing=SOFT, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_folder_gets_its_own_copy(tiny_backbone, scenes, inputs, tmp_path) -> None:
    from safetensors.torch import load_file

    found = collected(tiny_backbone, scenes, inputs, tmp_path / "stores")
    paths = save_prototypes(found, tmp_path / "run" / "prototypes")
    assert [path.name for path in paths] == [f"{group.name}.safetensors" for group in inputs]
    assert torch.equal(load_file(paths[2])["step_0"], found.matrix(inputs[2], 0))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_kept_prototypes_that_are_no_numbers_are_not_taken_for_vanished_objects(
    tiny_backbone, scenes, inputs, tmp_path, value, monkeypatch
) -> None:
    found = collected(tiny_backbone, scenes, inputs[:1], tmp_path)
    values = found.matrix(inputs[0], 0)
    values[2, 1] = value
    monkeypatch.setattr(type(found.cache), "read", lambda kept, unit: values)
    with pytest.raises(UserError, match=f"object '{found.objects[2].object}'.*delete"):
        found.matrix(inputs[0], 0)

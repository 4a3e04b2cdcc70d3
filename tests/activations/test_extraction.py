"""One pass over the images leaves the activations that the trajectory itself gives, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from diffprobe.activations.extraction import extract, extract_replayed
from diffprobe.activations.sources import Generation
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.probes.controls import permute_weights
from tests.tiny import tiny_layers

PROMPTS = [Prompt(text, seed, f"image_{seed}") for seed, text in enumerate(("a cat", "a dog", "rain"))]
SOURCE = Generation(PROMPTS, sampling_steps=3)
STEPS = [0, 2]
CALLED = {"control": "permuted", "seed": 1}


@pytest.fixture(scope="module")
def layers():
    return tiny_layers("self_attention&stage=decoder")


@pytest.fixture(scope="module")
def extraction(tiny_backbone, layers):
    return extract(tiny_backbone, SOURCE, layers, STEPS, dtype="float32", batch_size=2)


def test_rows_hold_the_activations_of_their_own_trajectory(tiny_backbone, layers, extraction):
    names = [layer.name for layer in layers]
    for row, prompt in enumerate(PROMPTS):
        for step in generate(tiny_backbone, [prompt.text], [prompt.seed], steps=3, layers=names):
            if step.index in STEPS:
                at = STEPS.index(step.index)
                assert torch.allclose(extraction.extras["noisy"][at, row], step.noisy[0], rtol=1e-4, atol=1e-4)
                for name in names:
                    stored = extraction.activations.values[name][at, row]
                    assert torch.allclose(stored, step.activations[name][0], atol=1e-4)


def test_images_are_the_plain_generation(tiny_backbone, extraction):
    texts, seeds = [prompt.text for prompt in PROMPTS], [prompt.seed for prompt in PROMPTS]
    *_, last = generate(tiny_backbone, texts, seeds, steps=3, decode=True)
    assert torch.allclose(extraction.images, last.images, atol=1e-4)


def test_an_image_is_decoded_after_every_kept_step(tiny_backbone, extraction):
    first, last = extraction.decode_steps(tiny_backbone, 1)
    assert torch.allclose(last, extraction.images[1], atol=1e-4)
    assert not torch.allclose(first, last, atol=1e-2)


def test_names_and_timesteps_travel_with_the_activations(extraction):
    assert extraction.activations.names == ["image_0", "image_1", "image_2"]
    assert extraction.activations.timesteps == [999.0, 0.0]


def test_batch_size_and_place_make_no_difference(tiny_backbone, layers, extraction, tmp_path):
    other = extract(
        tiny_backbone, SOURCE, layers, STEPS, dtype="float32", batch_size=1, stores=tmp_path, images_per_shard=2
    )
    rows = list(range(len(PROMPTS)))
    for name, values in extraction.activations.values.items():
        assert torch.allclose(values, other.activations.values[name][:, rows], atol=1e-4)
    assert torch.allclose(extraction.images, other.images, atol=1e-4)
    for name in ("noisy", "latents"):
        assert torch.allclose(extraction.extras[name], other.extras[name][:, rows], atol=1e-4)
    assert torch.allclose(extraction.decode_steps(tiny_backbone, 1), other.decode_steps(tiny_backbone, 1), atol=1e-4)


def test_what_is_stored_is_not_computed_again(tiny_backbone, layers, tmp_path):
    arguments = {"dtype": "float32", "batch_size": 2, "stores": tmp_path, "images_per_shard": 2}
    first = extract(tiny_backbone, SOURCE, layers, STEPS, **arguments)
    (store,) = tmp_path.iterdir()
    shards = sorted((store / "shards").iterdir())
    before = [shard.read_bytes() for shard in shards]
    shards[1].unlink()
    second = extract(tiny_backbone, SOURCE, layers, STEPS, **arguments)
    third = extract(tiny_backbone, SOURCE, layers, STEPS, **arguments)
    assert (first.computed, second.computed, third.computed) == (3, 1, 0)
    assert [shard.read_bytes() for shard in shards] == before


def test_another_request_has_another_store(tiny_backbone, layers, tmp_path):
    for steps, seeds in (([0], 0), ([2], 0), ([0], 5)):
        prompts = [Prompt("a cat", seeds, "one")]
        extract(tiny_backbone, Generation(prompts, sampling_steps=3), layers, steps, stores=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_every_image_and_step_is_evaluated_once(tiny_backbone, layers):
    evaluated = []
    hook = tiny_backbone.denoiser.register_forward_hook(lambda module, inputs, output: evaluated.append(len(inputs[0])))
    try:
        extract(tiny_backbone, SOURCE, layers, STEPS, batch_size=2)
    finally:
        hook.remove()
    assert sum(evaluated) == 2 * len(PROMPTS) * 3  # both halves of the guidance batch


def test_a_control_sees_the_latents_of_the_trajectory(tiny_backbone, layers, extraction):
    same = extract_replayed(tiny_backbone, tiny_backbone.denoiser, extraction, CALLED).activations
    permuted = permute_weights(tiny_backbone.denoiser, seed=1)
    other = extract_replayed(tiny_backbone, permuted, extraction, CALLED, batch_size=2).activations
    for name, values in extraction.activations.values.items():
        assert torch.allclose(values, same.values[name], atol=1e-4)
        assert not torch.allclose(values, other.values[name], atol=1e-2)


def test_steps_outside_the_trajectory_are_refused(tiny_backbone, layers):
    with pytest.raises(UserError, match=r"\[3\]: choose from 0 to 2"):
        extract(tiny_backbone, SOURCE, layers, [0, 3])


def test_activations_that_overflow_are_refused(tiny_backbone, layers):
    def grow(module, inputs, output):
        return output * 1e7

    hook = tiny_backbone.denoiser.get_submodule(layers[0].name).register_forward_hook(grow)
    try:
        with pytest.raises(
            UserError, match=r"of image .* at step 0 overflows float16.*features\.dtype=bfloat16 or float32"
        ):
            extract(tiny_backbone, Generation(PROMPTS[:1], sampling_steps=1), layers, [0])
    finally:
        hook.remove()

"""One pass over the prompts leaves the activations that the trajectory itself gives, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from diffprobe.backbone.layers import catalogue, select_layers
from diffprobe.backbone.trajectory import generate
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.features.extraction import extract, extract_replayed
from diffprobe.probes.controls import permute_weights

PROMPTS = [Prompt(text, seed, f"image_{seed}") for seed, text in enumerate(("a cat", "a dog", "rain"))]
STEPS = [0, 2]


@pytest.fixture(scope="module")
def layers(tiny_backbone):
    return select_layers(catalogue(tiny_backbone.denoiser), "self_attention&stage=decoder")


@pytest.fixture(scope="module")
def extraction(tiny_backbone, layers):
    return extract(tiny_backbone, PROMPTS, layers, STEPS, sampling_steps=3, dtype="float32", batch_size=2, shown=[1])


def test_rows_hold_the_activations_of_their_own_trajectory(tiny_backbone, layers, extraction):
    names = [layer.name for layer in layers]
    for row, prompt in enumerate(PROMPTS):
        for step in generate(tiny_backbone, [prompt.text], [prompt.seed], steps=3, layers=names):
            if step.index in STEPS:
                at = STEPS.index(step.index)
                assert torch.allclose(extraction.noisy[at, row], step.noisy[0], rtol=1e-4, atol=1e-4)
                for name in names:
                    stored = extraction.activations.values[name][at, row]
                    assert torch.allclose(stored, step.activations[name][0], atol=1e-4)


def test_images_are_the_plain_generation(tiny_backbone, extraction):
    texts, seeds = [prompt.text for prompt in PROMPTS], [prompt.seed for prompt in PROMPTS]
    *_, last = generate(tiny_backbone, texts, seeds, steps=3, decode=True)
    assert torch.allclose(extraction.images, last.images, atol=1e-4)


def test_shown_images_are_decoded_at_every_kept_step(extraction):
    assert list(extraction.shown) == [1]
    assert torch.allclose(extraction.shown[1][-1], extraction.images[1], atol=1e-4)
    assert not torch.allclose(extraction.shown[1][0], extraction.shown[1][-1], atol=1e-2)


def test_names_and_timesteps_travel_with_the_activations(extraction):
    assert extraction.activations.names == ["image_0", "image_1", "image_2"]
    assert extraction.activations.timesteps == [999.0, 0.0]


def test_batch_size_and_place_make_no_difference(tiny_backbone, layers, extraction, tmp_path):
    other = extract(
        tiny_backbone, PROMPTS, layers, STEPS, sampling_steps=3, dtype="float32", batch_size=3, folder=tmp_path
    )
    for name, values in extraction.activations.values.items():
        assert torch.allclose(values, other.activations.values[name], atol=1e-4)
    assert len(list(tmp_path.iterdir())) == len(layers)


def test_every_image_and_step_is_evaluated_once(tiny_backbone, layers):
    evaluated = []
    hook = tiny_backbone.denoiser.register_forward_hook(lambda module, inputs, output: evaluated.append(len(inputs[0])))
    try:
        extract(tiny_backbone, PROMPTS, layers, STEPS, sampling_steps=3, batch_size=2)
    finally:
        hook.remove()
    assert sum(evaluated) == 2 * len(PROMPTS) * 3  # both halves of the guidance batch


def test_a_control_sees_the_latents_of_the_trajectory(tiny_backbone, layers, extraction):
    same = extract_replayed(tiny_backbone, tiny_backbone.denoiser, PROMPTS, extraction, sampling_steps=3)
    permuted = permute_weights(tiny_backbone.denoiser, seed=1)
    other = extract_replayed(tiny_backbone, permuted, PROMPTS, extraction, sampling_steps=3)
    for name, values in extraction.activations.values.items():
        assert torch.allclose(values, same.values[name], atol=1e-4)
        assert not torch.allclose(values, other.values[name], atol=1e-2)


def test_steps_outside_the_trajectory_are_refused(tiny_backbone, layers):
    with pytest.raises(UserError, match=r"\[3\]: choose from 0 to 2"):
        extract(tiny_backbone, PROMPTS, layers, [0, 3], sampling_steps=3)


def test_activations_that_overflow_are_refused(tiny_backbone, layers):
    def grow(module, inputs, output):
        return output * 1e7

    hook = tiny_backbone.denoiser.get_submodule(layers[0].name).register_forward_hook(grow)
    try:
        with pytest.raises(UserError, match=r"overflow torch\.float16"):
            extract(tiny_backbone, PROMPTS[:1], layers, [0], sampling_steps=1)
    finally:
        hook.remove()

"""Latents, pictures and the VAE decoder's attention stand in for layers, and are exactly what they are called."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from diffprobe.activations.control_inputs import (
    CONTROL_INPUTS,
    control_activations,
    control_layers,
    extract_control_inputs,
)
from diffprobe.activations.extraction import StoreFolder, extract, extract_replayed
from diffprobe.activations.sources import Generation, Noised
from diffprobe.activations.store.manifest import describe_control_inputs, describe_replay
from diffprobe.backbone.capture import decode_latents, encode_images
from diffprobe.backbone.trajectory import generate
from diffprobe.data.images import ImageFileCollection, load_images
from diffprobe.data.prompts import Prompt
from diffprobe.errors import UserError
from diffprobe.probes.controls import fresh_weights
from tests.tiny import shared_backbone, tiny_layers
from tests.tiny_families import FAMILIES

PROMPTS = [Prompt(text, seed, f"image_{seed}") for seed, text in enumerate(("a cat", "a dog", "rain"))]
SOURCE = Generation(PROMPTS, sampling_steps=3)
STEPS = [0, 2]


@pytest.fixture(scope="module")
def layers():
    return tiny_layers("self_attention&stage=decoder")[-1:]


@pytest.fixture(scope="module")
def extraction(tiny_backbone, layers):
    return extract(tiny_backbone, SOURCE, layers, STEPS, dtype="float32", batch_size=2)


@pytest.fixture(scope="module")
def inputs(tiny_backbone, extraction):
    return extract_control_inputs(tiny_backbone, extraction, CONTROL_INPUTS, batch_size=2).activations


@contextmanager
def counted(module):
    """How often a module ran inside the block."""
    runs = []
    hook = module.register_forward_hook(lambda *_: runs.append(1))
    try:
        yield runs
    finally:
        hook.remove()


def patches(image, size):
    """Channels [3 * size * size, h, w] of an image [3, H, W], one pixel after another."""
    _, height, width = image.shape
    found = torch.empty(3 * size * size, height // size, width // size)
    for row in range(height // size):
        for column in range(width // size):
            square = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
            found[:, row, column] = square.flatten()
    return found


def test_names_steps_and_timesteps_are_those_of_the_extraction(extraction, inputs):
    real = extraction.activations
    assert (inputs.names, inputs.steps, inputs.timesteps) == (real.names, real.steps, real.timesteps)
    assert list(inputs.values) == ["latent", "pixels", "decoder"]


def test_latents_are_what_the_denoiser_was_asked_about(extraction, inputs):
    assert torch.equal(inputs.values["latent"], extraction.extras["noisy"])


def test_a_token_of_pixels_is_its_patch_of_the_picture_after_the_step(tiny_backbone, extraction, inputs):
    for row in range(len(PROMPTS)):
        pictures = extraction.decode_steps(tiny_backbone, row)
        for at, picture in enumerate(pictures):
            assert torch.allclose(inputs.values["pixels"][at, row], patches(picture, 8), atol=1e-5)
    assert torch.allclose(inputs.values["pixels"][1, 0], patches(extraction.images[0], 8), atol=1e-4)


def test_decoder_is_the_output_of_the_attention_while_the_latents_are_decoded(tiny_backbone, extraction, inputs):
    seen = []
    attention = tiny_backbone.vae.decoder.mid_block.attentions[0]
    hook = attention.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        for row in range(len(PROMPTS)):
            extraction.decode_steps(tiny_backbone, row)
    finally:
        hook.remove()
    assert seen[0].shape == (1, 8, 16, 16)
    expected = torch.cat(seen).unflatten(0, (len(PROMPTS), len(STEPS))).transpose(0, 1)
    assert torch.allclose(inputs.values["decoder"], expected, atol=1e-5)


def test_pictures_are_decoded_once_for_all_inputs_and_no_further_than_needed(tiny_backbone, extraction):
    decoder, denoiser = tiny_backbone.vae.decoder, tiny_backbone.denoiser
    for names, begun, finished in (
        (["latent"], 0, 0),
        (["decoder"], 6, 0),
        (["pixels"], 6, 6),
        (["pixels", "decoder", "latent"], 6, 6),
    ):
        with counted(decoder.conv_in) as first, counted(decoder.conv_out) as last, counted(denoiser) as asked:
            extract_control_inputs(tiny_backbone, extraction, names)
        assert (len(first), len(last), len(asked)) == (begun, finished, 0)


def test_batch_size_and_place_make_no_difference(tiny_backbone, extraction, inputs, tmp_path):
    arguments = {"batch_size": 1, "stores": tmp_path}
    stored = extract_control_inputs(tiny_backbone, extraction, CONTROL_INPUTS, **arguments)
    again = extract_control_inputs(tiny_backbone, extraction, CONTROL_INPUTS, **arguments)
    assert (stored.computed, again.computed) == (3, 0)
    for name, values in inputs.values.items():
        assert torch.equal(values, again.activations.values[name][:, :])


def test_inputs_of_a_step_as_it_is_taken_are_those_of_the_extraction(tiny_backbone, inputs):
    texts, seeds = [prompt.text for prompt in PROMPTS], [prompt.seed for prompt in PROMPTS]
    for step in generate(tiny_backbone, texts, seeds, steps=3):
        if step.index in STEPS:
            live = control_activations(tiny_backbone, CONTROL_INPUTS, step.noisy, step.latents)
            for name, values in live.items():
                stored = inputs.values[name][STEPS.index(step.index)]
                assert torch.allclose(stored, values, rtol=1e-3, atol=1e-3)


def test_a_store_of_more_steps_gives_the_inputs_at_those_asked_for(tiny_backbone, layers, inputs, tmp_path):
    stores = StoreFolder(tmp_path, steps=[0, 1, 2])
    extraction = extract(tiny_backbone, SOURCE, layers, STEPS, dtype="float32", batch_size=2, stores=stores)
    found = extract_control_inputs(tiny_backbone, extraction, CONTROL_INPUTS, stores=stores).activations
    assert (found.steps, found.timesteps) == (inputs.steps, inputs.timesteps)
    for name, values in inputs.values.items():
        assert torch.allclose(found.values[name][:, :], values, rtol=1e-3, atol=1e-3)


def test_inputs_are_kept_in_the_precision_of_the_activations(tiny_backbone, layers):
    extraction = extract(tiny_backbone, SOURCE, layers, [2])
    found = extract_control_inputs(tiny_backbone, extraction, ["pixels"]).activations
    assert found.values["pixels"].dtype == extraction.activations.values[layers[0].name].dtype == torch.float16


def test_noised_images_show_the_clean_picture_at_every_step(tiny_backbone, layers, tmp_path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / f"{name}.png")
    source = Noised(ImageFileCollection(load_images(tmp_path)), timesteps=[10, 500])
    extraction = extract(tiny_backbone, source, layers, [0, 1], dtype="float32")
    with counted(tiny_backbone.vae.decoder.conv_in) as decodings:
        found = extract_control_inputs(tiny_backbone, extraction, CONTROL_INPUTS).activations.values
    assert len(decodings) == 2
    assert torch.equal(found["latent"], extraction.extras["noisy"])
    for row, image in enumerate(extraction.images):
        with torch.no_grad():
            picture = decode_latents(tiny_backbone, encode_images(tiny_backbone, image[None]))[0]
        for at in (0, 1):
            assert torch.allclose(found["pixels"][at, row], patches(picture, 8), atol=1e-5)
    assert torch.equal(found["decoder"][0], found["decoder"][1])


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_say_the_shapes_of_every_familys_inputs(family, family_folders):
    size = 32 if family == "flux" else None  # the only one whose config does not say for which size it was made
    backbone = shared_backbone(family_folders[family], scheduler="own", size=size)
    names = CONTROL_INPUTS[:2] if backbone.vae is None else CONTROL_INPUTS
    latents = torch.randn(2, *backbone.latent_shape)
    found = control_activations(backbone, names, latents, latents)
    for layer in control_layers(backbone, names):
        assert found[layer.name].shape == (2, layer.channels, layer.height, layer.width)
    pixels = next(layer for layer in control_layers(backbone, names) if layer.name == "pixels")
    assert pixels.channels * pixels.tokens == 3 * backbone.image_size**2


@pytest.mark.parametrize(("size", "patch"), [(32, 1), (64, 1), (96, 2), (256, 4)])
def test_pictures_in_pixel_space_are_cut_into_at_most_64_patches_a_side(size, patch, family_folders):
    backbone = shared_backbone(family_folders["ddpm"], scheduler="own", size=size)
    (layer,) = control_layers(backbone, ["pixels"])
    assert (layer.channels, layer.height, layer.width) == (3 * patch**2, size // patch, size // patch)
    images = torch.rand(1, 3, size, size)
    found = control_activations(backbone, ["pixels"], images, images * 2 - 1)["pixels"]
    assert torch.allclose(found[0], patches(images[0], patch), atol=1e-6)


def test_a_model_without_decoder_attention_is_told_so(tiny_backbone, family_folders):
    pixels = shared_backbone(family_folders["ddpm"], scheduler="own")
    with pytest.raises(UserError, match=r"'decoder'.*it has no VAE; leave"):
        control_layers(pixels, ["latent", "decoder"])
    plain = AutoencoderKL(norm_num_groups=32, mid_block_add_attention=False)
    other = replace(tiny_backbone, pipeline=SimpleNamespace(unet=tiny_backbone.denoiser, vae=plain))
    with pytest.raises(UserError, match=r"'decoder'.*its AutoencoderKL does without; leave"):
        control_layers(other, ["decoder"])


def test_a_fresh_network_is_replayed_into_a_store_of_its_own(tiny_backbone, extraction):
    called = {"control": "fresh", "seed": 1}
    fresh = extract_replayed(tiny_backbone, fresh_weights(tiny_backbone.denoiser, 1), extraction, called)
    assert fresh.manifest.model["name"] == "tiny-fresh-1"
    for name, values in extraction.activations.values.items():
        assert not torch.allclose(values, fresh.activations.values[name], atol=1e-2)
    others = [{"control": "permuted", "seed": 1}, {"control": "fresh", "seed": 0}]
    manifests = [fresh.manifest, *(describe_replay(extraction.manifest, each) for each in others)]
    for names in (["latent"], ["pixels"], ["latent", "pixels"]):
        manifests.append(describe_control_inputs(extraction.manifest, control_layers(tiny_backbone, names)))
    assert len({manifest.fingerprint for manifest in manifests}) == 6


def test_an_unknown_input_is_refused(tiny_backbone, extraction):
    with pytest.raises(UserError, match=r"no control input 'pixel': choose from latent, pixels, decoder"):
        extract_control_inputs(tiny_backbone, extraction, ["pixel"])

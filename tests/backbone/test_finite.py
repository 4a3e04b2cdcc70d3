"""NaN and infinity end every way through a network with one error: in what, of which image, when, and what to do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from diffprobe.backbone.capture import decode_latents, encode_images
from diffprobe.backbone.finite import NotFinite, check_finite, in_parts, naming_images
from diffprobe.backbone.load import load_backbone
from diffprobe.backbone.real_images import evaluate_noised, image_to_image, invert
from diffprobe.backbone.trajectory import fresh_scheduler, generate, replay
from tests.spoilt import spoilt

LAYER = "up_blocks.3.resnets.1"
LATENTS = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
TEXTS, SEEDS = ["a cat", "a dog", "a house"], [1, 2, 3]
WALKS = {
    "generate": lambda backbone, layers: generate(backbone, TEXTS, SEEDS, steps=2, layers=layers),
    "image_to_image": lambda backbone, layers: image_to_image(
        backbone, LATENTS, SEEDS, TEXTS, strength=1.0, steps=2, layers=layers
    ),
    "invert": lambda backbone, layers: invert(backbone, LATENTS, TEXTS, steps=2, layers=layers),
    "evaluate_noised": lambda backbone, layers: evaluate_noised(backbone, LATENTS, SEEDS, [300, 100], layers, draws=2),
    "replay": lambda backbone, layers: replay(
        backbone,
        backbone.denoiser,
        TEXTS,
        torch.stack([LATENTS, LATENTS]),
        [0, 1],
        scheduler=fresh_scheduler(backbone, 2),
        layers=layers,
    ),
}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("way", WALKS)
def test_the_layer_image_and_step_of_an_activation_are_named(tiny_backbone, way, value):
    call = {"evaluate_noised": 2, "replay": 0}.get(way, 1)  # of the second step; two draws, or both steps in one call
    layer = tiny_backbone.denoiser.get_submodule(LAYER)
    with spoilt(layer, -2, call=call, value=value), pytest.raises(NotFinite) as caught, naming_images(TEXTS):
        list(WALKS[way](tiny_backbone, [LAYER]))
    message = str(caught.value)
    assert message.startswith(f"NaN or infinity in the activation of {LAYER} of image 'a dog' at ")
    assert ("timestep 100:" if way == "evaluate_noised" else "step 1, timestep ") in message


@pytest.mark.parametrize("way", ["generate", "image_to_image", "invert"])
def test_latents_are_looked_at_where_no_layer_is(tiny_backbone, way):
    with spoilt(tiny_backbone.denoiser, -1, call=1), pytest.raises(NotFinite) as caught:
        list(WALKS[way](tiny_backbone, []))
    assert "in the latents of image 3 of its batch at step 1, timestep " in str(caught.value)


def test_pictures_are_looked_at_before_infinity_becomes_white(tiny_backbone):
    for value in (math.nan, math.inf, -math.inf):
        with spoilt(tiny_backbone.vae.decoder, 1, value=value), pytest.raises(NotFinite, match="the decoded image of"):
            decode_latents(tiny_backbone, LATENTS)
    with spoilt(tiny_backbone.vae.decoder, 2, call=1), pytest.raises(NotFinite, match=r"image 3 of .* at step 1"):
        list(generate(tiny_backbone, TEXTS, SEEDS, steps=2, decode=True))
    with spoilt(tiny_backbone.vae.encoder, 0), pytest.raises(NotFinite, match=r"the encoded image of .* the VAE"):
        encode_images(tiny_backbone, torch.zeros(1, 3, 128, 128))


def test_an_image_that_goes_alone_keeps_its_place_in_the_batch(tiny_backbone):
    with (
        spoilt(tiny_backbone.vae.decoder, 0, call=2),
        pytest.raises(NotFinite, match="image 'a house'"),
        naming_images(TEXTS),
    ):
        in_parts(lambda one: decode_latents(tiny_backbone, one), LATENTS)


def test_large_numbers_whose_sum_overflows_are_fine(tiny_backbone):
    values = torch.full((2, 4, 4, 4), 3e38)
    check_finite(tiny_backbone, {"values": values}, images=2, network=tiny_backbone.denoiser)


def test_the_advice_is_about_the_precision_that_the_network_computes_in(tiny_backbone, tiny_pipeline_folder):
    spoiled, half = {"values": torch.tensor([[math.inf]])}, load_backbone(str(tiny_pipeline_folder), dtype="float16")
    denoiser, vae = tiny_backbone.denoiser, tiny_backbone.vae
    other = load_backbone(str(tiny_pipeline_folder)).denoiser

    def advice(backbone, network, **options) -> str:
        with pytest.raises(NotFinite) as caught:
            check_finite(backbone, spoiled, images=1, network=network, **options)
        return caught.value.advice

    assert advice(half, half.denoiser).endswith("float16; use model.dtype=float32 or bfloat16")
    assert advice(half, half.vae).startswith("the VAE computes in float16; use model.dtype=float32")
    cast = replace(tiny_backbone, autocast="bfloat16")
    assert advice(cast, denoiser).endswith("bfloat16; use model.autocast=null")
    assert "model.dtype" not in advice(cast, vae)
    assert advice(replace(half, autocast="float16"), half.denoiser).endswith("or bfloat16 model.autocast=null")
    assert "float32 already; see whether model.scheduler" in advice(tiny_backbone, denoiser)
    assert advice(tiny_backbone, other).endswith("or leave out this control (control.names)")
    assert "analysis.margin" in advice(tiny_backbone, denoiser, edited=True)
    with torch.no_grad():
        other.conv_in.weight[0] = math.nan
    assert "1 weights of the denoiser hold such numbers, first conv_in.weight" in advice(tiny_backbone, other)

"""DDIM inversion: against a slow loop of the formula, and there and back on a picture that the model knows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffprobe.backbone.capture import decode_latents, encode_images
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.real_images import ddim_scheduler, draw_noise, invert, reconstruct
from diffprobe.errors import UserError
from diffprobe.pocket.render import render_indices
from tests.tiny import shared_backbone

PROMPTS = ["a red ball", "two cubes, left and right"]
LAYERS = ["down_blocks.2.resnets.0", "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"]
LATENTS = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(0))


def predicting(backbone: Backbone, prediction: str) -> Backbone:
    """The same backbone, whose scheduler takes the denoiser's output for something else."""
    pipeline = type(backbone.pipeline)(**backbone.pipeline.components, requires_safety_checker=False)
    own: Any = pipeline.scheduler
    pipeline.scheduler = type(own).from_config(own.config, prediction_type=prediction)
    return replace(backbone, pipeline=pipeline)


@torch.no_grad()
def slow_inversion(backbone: Backbone, latents: Tensor, steps: int) -> list[Tensor]:
    """Latents after each step, from the formulas: predict the clean image and the noise, mix them anew."""
    pipeline: Any = backbone.pipeline
    text, _ = pipeline.encode_prompt(PROMPTS, backbone.device, 1, False)
    alpha_bar = pipeline.scheduler.alphas_cumprod
    kind = pipeline.scheduler.config.prediction_type
    found = []
    for number in range(steps):
        timestep = number * (1000 // steps) + 1  # 1, 201, 401, ... of 5 steps
        before = max(timestep - 1000 // steps, 0)
        image_share, noise_share = alpha_bar[before].sqrt(), (1 - alpha_bar[before]).sqrt()
        output = pipeline.unet(latents, timestep, encoder_hidden_states=text).sample
        if kind == "epsilon":
            noise = output
            clean = (latents - noise_share * noise) / image_share
        elif kind == "v_prediction":
            clean = image_share * latents - noise_share * output
            noise = noise_share * latents + image_share * output
        else:
            clean = output
            noise = (latents - image_share * clean) / noise_share
        latents = alpha_bar[timestep].sqrt() * clean + (1 - alpha_bar[timestep]).sqrt() * noise
        found.append(latents)
    return found


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_inversion_follows_the_formula_for_everything_a_denoiser_may_predict(
    tiny_backbone: Backbone, prediction: str
) -> None:
    backbone = predicting(tiny_backbone, prediction)
    steps = list(invert(backbone, LATENTS, PROMPTS, steps=5, layers=LAYERS))
    for step, expected in zip(steps, slow_inversion(backbone, LATENTS, 5), strict=True):
        assert torch.allclose(step.latents, expected, rtol=1e-3, atol=1e-4)
    assert [(step.index, step.timestep) for step in steps] == [(0, 1), (1, 201), (2, 401), (3, 601), (4, 801)]
    assert torch.equal(steps[0].noisy, LATENTS)
    for step, following in itertools.pairwise(steps):
        assert torch.equal(step.latents, following.noisy)
    assert [tuple(values.shape) for values in steps[0].activations.values()] == [(2, 16, 4, 4), (2, 8, 16, 16)]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_prediction_that_is_the_same_on_both_ways_is_undone_exactly(tiny_backbone: Backbone, prediction: str) -> None:
    """Inversion is inexact only because the denoiser is asked at the other end of each step."""
    there = ddim_scheduler(predicting(tiny_backbone, prediction), 20, inverse=True)
    back = ddim_scheduler(predicting(tiny_backbone, prediction), 20)
    assert there.timesteps.tolist() == back.timesteps.tolist()[::-1]
    alpha_bar = back.alphas_cumprod
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))

    def output(timestep: int, latents: Tensor) -> Tensor:
        """What predicts the same noise, wherever it is asked."""
        if prediction == "epsilon":
            return noise
        level = alpha_bar[max(timestep, 0)]
        return (noise - (1 - level).sqrt() * latents) / level.sqrt()

    latents = start = LATENTS[..., :8, :8]
    for timestep in there.timesteps.tolist():
        latents = there.step(output(timestep - 50, latents), timestep, latents).prev_sample
    for timestep in back.timesteps.tolist():
        latents = back.step(output(timestep, latents), timestep, latents).prev_sample
    assert torch.allclose(latents, start, atol=2e-3)


@pytest.fixture(scope="module")
def pocket() -> Backbone:
    return load_backbone("pocket", device="cpu")


def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]."""
    return float(-10 * (one - other).square().mean().log10())


@pytest.mark.slow
def test_an_inverted_scene_comes_back(pocket: Backbone) -> None:
    scenes = render_indices([1], "test")
    clean = encode_images(pocket, scenes.images)
    *_, top = invert(pocket, clean, scenes.captions, steps=10)
    *_, last = reconstruct(pocket, top.latents, scenes.captions, steps=10, decode=True)
    *_, other = reconstruct(pocket, draw_noise([0], (4, 16, 16))[0], scenes.captions, steps=10, decode=True)
    assert last.images is not None
    assert other.images is not None
    coded = decode_latents(pocket, clean)  # the best that any latents can do
    back, chance = psnr(last.images, coded), psnr(other.images, coded)
    print(f"reconstruction {back:.1f} dB, random noise {chance:.1f} dB")
    assert back > 20
    assert back > chance + 6


def test_the_way_there_asks_the_denoiser_once_a_step_and_draws_nothing(tiny_backbone: Backbone) -> None:
    seen: list[int] = []
    hook = tiny_backbone.denoiser.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    try:
        one = list(invert(tiny_backbone, LATENTS, steps=4))[-1].latents
    finally:
        hook.remove()
    assert seen == [2, 2, 2, 2]  # no guidance batch
    torch.manual_seed(5)
    assert torch.equal(list(invert(tiny_backbone, LATENTS, steps=4))[-1].latents, one)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++"])
def test_the_backbones_own_sampler_does_not_matter(
    tiny_backbone: Backbone, tiny_pipeline_folder: Path, scheduler: str
) -> None:
    other = shared_backbone(tiny_pipeline_folder, scheduler=scheduler)
    one = list(invert(tiny_backbone, LATENTS, PROMPTS, steps=4))[-1].latents
    assert torch.equal(list(invert(other, LATENTS, PROMPTS, steps=4))[-1].latents, one)


@pytest.mark.parametrize("steps", [1, 3, 999, 1000])
def test_every_number_of_steps_has_timesteps_of_training(tiny_backbone: Backbone, steps: int) -> None:
    timesteps = ddim_scheduler(tiny_backbone, steps, inverse=True).timesteps
    assert len(timesteps) == steps
    assert 0 <= int(timesteps[0]) <= int(timesteps[-1]) <= 999


def test_a_flow_matching_model_is_refused(tiny_backbone: Backbone) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline = type(tiny_backbone.pipeline)(**tiny_backbone.pipeline.components, requires_safety_checker=False)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()  # type: ignore[assignment]
    with pytest.raises(UserError, match="DDIM needs a denoiser trained on a schedule of betas"):
        invert(replace(tiny_backbone, pipeline=pipeline), LATENTS, PROMPTS)


@pytest.mark.parametrize("way", [invert, reconstruct])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "0 sampling steps; use 1 to 1000"),
        ({"prompts": ["a"]}, "1 prompts for 2 images"),
        ({"latents": LATENTS[0]}, r"latents of shape \[4, 16, 16\]"),
        ({"layers": ["mid_block.resnet.0"]}, r"nearest: mid_block\.resnets\.0"),
    ],
)
def test_impossible_requests_fail_at_once(tiny_backbone: Backbone, way: Any, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        way(tiny_backbone, **{"latents": LATENTS, "prompts": PROMPTS, **change})

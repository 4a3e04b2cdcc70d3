"""Image to image: the same pictures as the plain pipeline of diffusers, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch
from torch import Tensor

from diffprobe.backbone.capture import encode_prompts
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.real_images import draw_noise, image_to_image, steps_taken
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import TrajectoryStep, generate
from diffprobe.errors import UserError
from tests.tiny import shared_backbone

PROMPTS = ["a red ball", "two cubes, left and right"]
SEEDS = [7, 12345678]
LAYERS = ["down_blocks.2.resnets.0", "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"]
LATENTS = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(0))


def all_steps(backbone: Backbone, prompts: list[str] | None = PROMPTS, **options) -> list[TrajectoryStep]:
    return list(image_to_image(backbone, LATENTS, SEEDS, prompts, **{"strength": 0.5, "steps": 6, **options}))


def plain(backbone: Backbone, prompts: list[str], strength: float, steps: int) -> tuple[list[Tensor], Tensor]:
    """Latents after every step and the images of diffusers' own pipeline, one CPU generator an image."""
    own = backbone.pipeline
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(
        own.vae, own.text_encoder, own.tokenizer, own.unet, own.scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    after: list[Tensor] = []
    images = pipeline(
        prompts,
        image=LATENTS,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=backbone.guidance,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        output_type="pt",
        callback_on_step_end=lambda pipeline, index, timestep, tensors: after.append(tensors["latents"]) or {},
    ).images
    return after, images


@pytest.mark.parametrize(
    ("scheduler", "guidance", "strength"),
    [
        *((name, 7.5, 0.5) for name in SCHEDULERS if name != "lms"),  # see test_mid_trajectory.py
        *(("euler", 1.0, 0.7), ("ddim", 1.0, 1.0), ("dpm++", 7.5, 0.17), ("lms", 7.5, 1.0)),
    ],
)
def test_every_step_is_that_of_the_plain_pipeline(
    tiny_pipeline_folder: Path, scheduler: str, guidance: float, strength: float
) -> None:
    backbone = shared_backbone(tiny_pipeline_folder, scheduler=scheduler, guidance=guidance)
    steps = all_steps(backbone, strength=strength, layers=LAYERS, decode=True)
    latents, images = plain(backbone, PROMPTS, strength, 6)
    assert len(steps) == len(latents)
    for step, expected in zip(steps, latents, strict=True):
        assert torch.equal(step.latents, expected)
    assert steps[-1].images is not None
    assert torch.equal(steps[-1].images, images)
    assert images.std() > 0.01  # a blank image would agree with anything


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [("EulerDiscreteScheduler", {"use_karras_sigmas": True}), ("EulerAncestralDiscreteScheduler", {})],
)
def test_samplers_with_noise_levels_or_noise_of_their_own_are_followed(
    tiny_backbone: Backbone, scheduler: str, options: dict[str, bool]
) -> None:
    pipeline = type(tiny_backbone.pipeline)(**tiny_backbone.pipeline.components, requires_safety_checker=False)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config, **options)
    other = replace(tiny_backbone, pipeline=pipeline)
    latents, _ = plain(other, PROMPTS, 0.5, 6)
    for step, expected in zip(all_steps(other), latents, strict=True):
        assert torch.equal(step.latents, expected)


def test_flow_matching_at_full_strength_is_generation(family_folders: Mapping[str, Path]) -> None:
    """Its trajectories begin at pure noise; at less strength with a mixture along a straight line."""
    backbone = shared_backbone(family_folders["sd3"], scheduler="own", guidance=3)
    clean = torch.rand((2, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))
    whole = list(generate(backbone, PROMPTS, SEEDS, steps=4))
    same = list(image_to_image(backbone, clean, SEEDS, PROMPTS, strength=1.0, steps=4))
    assert torch.equal(same[-1].latents, whole[-1].latents)
    half = list(image_to_image(backbone, clean, SEEDS, PROMPTS, strength=0.5, steps=4))
    share = whole[2].timestep / 1000
    expected = (1 - share) * clean + share * draw_noise(SEEDS, backbone.latent_shape)[0]
    assert torch.allclose(half[0].noisy, expected, atol=1e-6)
    assert [step.timestep for step in half] == [step.timestep for step in whole[2:]]


def test_empty_prompts_are_sampled_without_guidance_which_changes_nothing(tiny_pipeline_folder: Path) -> None:
    backbone = shared_backbone(tiny_pipeline_folder, scheduler="ddim")
    seen: list[int] = []
    hook = backbone.denoiser.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    last = all_steps(backbone, prompts=None, decode=True)[-1]
    hook.remove()
    assert seen == [2, 2, 2]
    latents, _ = plain(backbone, ["", ""], 0.5, 6)
    assert torch.allclose(last.latents, latents[-1], atol=1e-4)
    both = all_steps(backbone, prompts=None, layers=LAYERS, half="both")[-1]
    assert len(both.activations[LAYERS[0]]) == 4


def test_stable_diffusion_xl_guides_the_empty_prompt_too(family_folders: Mapping[str, Path]) -> None:
    """What it holds against a prompt is zeros, of which the empty prompt is not made."""
    backbone = shared_backbone(family_folders["sdxl"], scheduler="own", guidance=5.0)
    clean = torch.randn((1, *backbone.latent_shape), generator=torch.Generator().manual_seed(0))
    pipeline = diffusers.StableDiffusionXLImg2ImgPipeline(**backbone.pipeline.components, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "",
        image=clean,
        strength=0.5,
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    *_, last = image_to_image(backbone, clean, [3], strength=0.5, steps=4)
    assert torch.allclose(last.latents, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["sd2", "sdxl", "pixart", "sd3"])
def test_whether_the_half_without_prompt_is_the_empty_prompt_is_known(
    family_folders: Mapping[str, Path], name: str
) -> None:
    backbone = shared_backbone(family_folders[name], scheduler="own", guidance=5.0)
    halves = [value.chunk(2) for value in encode_prompts(backbone, [""], guided=True).values()]
    same = all(torch.allclose(one, other, atol=1e-6) for one, other in halves)
    assert backbone.family.unconditional_is_empty_prompt(backbone.settings) == same
    assert backbone.guidance_matters([""]) != same
    assert backbone.guidance_matters(["a ball"])


def test_steps_have_the_index_and_timestep_they_have_in_generation(tiny_backbone: Backbone) -> None:
    whole = list(generate(tiny_backbone, PROMPTS, SEEDS, steps=6))
    steps = all_steps(tiny_backbone, layers=LAYERS)
    assert [(step.index, step.timestep) for step in steps] == [(step.index, step.timestep) for step in whole[3:]]
    assert steps[0].activations[LAYERS[1]].shape == (2, 8, 16, 16)
    assert steps[0].images is None


def test_an_image_does_not_depend_on_its_batch(tiny_backbone: Backbone) -> None:
    together = all_steps(tiny_backbone)[-1].latents
    for row in range(2):
        alone = image_to_image(
            tiny_backbone, LATENTS[row : row + 1], SEEDS[row : row + 1], PROMPTS[row : row + 1], strength=0.5, steps=6
        )
        assert torch.allclose(list(alone)[-1].latents[0], together[row], atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "strength", "taken"),
    [(15, 1.0, range(15)), (15, 0.2, range(12, 15)), (15, 0.13, range(14, 15)), (100, 0.29, range(72, 100))],
)
def test_strength_chooses_the_last_steps_rounded_down(steps: int, strength: float, taken: range) -> None:
    assert steps_taken(steps, strength) == taken


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strength": 0.0}, r"strength 0\.0 of 6 steps: strength must be over 0"),
        ({"strength": 1.1}, r"strength 1\.1 of 6 steps: strength must be"),
        ({"strength": 0.1}, r"strength 0\.1 of 6 steps is less than one step; use at least 0\.167"),
        ({"seeds": [1]}, "1 seeds for 2 images"),
        ({"prompts": ["a"]}, "1 prompts for 2 images"),
        ({"latents": LATENTS[0]}, r"latents of shape \[4, 16, 16\]"),
        ({"steps": 0}, r"of 0 steps: .* steps at least 1"),
        ({"half": "left"}, "no half 'left'"),
        ({"layers": ["mid_block.resnet.0"]}, r"nearest: mid_block\.resnets\.0"),
    ],
)
def test_impossible_requests_fail_at_once(tiny_backbone: Backbone, change: dict[str, object], said: str) -> None:
    options = {"latents": LATENTS, "seeds": SEEDS, "prompts": PROMPTS, "strength": 0.5, "steps": 6, **change}
    with pytest.raises(UserError, match=said):
        image_to_image(tiny_backbone, **options)  # type: ignore[arg-type]


def test_the_unconditional_half_needs_guidance(tiny_backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"no half 'unconditional' at guidance 1\.0"):
        image_to_image(replace(tiny_backbone, guidance=1.0), LATENTS, SEEDS, strength=0.5, half="unconditional")

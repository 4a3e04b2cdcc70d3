from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffprobe.backbone.capture import add_noise, scale_input
from diffprobe.backbone.load import Backbone, load_backbone
from diffprobe.backbone.samplers import SCHEDULERS
from diffprobe.backbone.trajectory import fresh_scheduler, generate
from tests.tiny import shared_backbone

STEPS = 7


@pytest.fixture(scope="module", params=SCHEDULERS)
def backbone(tiny_pipeline_folder: Path, request: pytest.FixtureRequest) -> Backbone:
    return shared_backbone(tiny_pipeline_folder, scheduler=request.param)


@pytest.fixture(scope="module", params=["sd3", "flux"])
def flow(family_folders: Mapping[str, Path], request: pytest.FixtureRequest) -> Backbone:
    return shared_backbone(family_folders[request.param], scheduler="own", size=32)


def pair(backbone: Backbone) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (3, *backbone.latent_shape)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def alpha(timestep: int) -> float:
    """Of Stable Diffusion's schedule, multiplied up step by step."""
    product, first, last = 1.0, 0.00085**0.5, 0.012**0.5
    for step in range(timestep + 1):
        product *= 1 - (first + (last - first) * step / 999) ** 2
    return product


@pytest.mark.parametrize("timestep", [0, 1, 250, 801, 999])
def test_the_denoiser_sees_the_same_mixture_with_every_scheduler(backbone: Backbone, timestep: int) -> None:
    clean, noise = pair(backbone)
    seen = scale_input(backbone, add_noise(backbone, clean, noise, timestep), timestep)
    share = alpha(timestep)
    assert torch.allclose(seen, share**0.5 * clean + (1 - share) ** 0.5 * noise, atol=1e-4)


def test_noisy_latents_are_on_the_scale_of_the_schedulers_trajectory(backbone: Backbone) -> None:
    clean, noise = pair(backbone)
    for index in range(STEPS):
        scheduler: Any = fresh_scheduler(backbone, STEPS)
        timestep = scheduler.timesteps[index]
        noisy = add_noise(backbone, clean, noise, timestep)
        theirs = scheduler.add_noise(clean, noise, timestep.expand(3))
        assert torch.allclose(noisy, theirs, rtol=1e-3, atol=1e-3)
        inputs = scheduler.scale_model_input(noisy, timestep)
        assert torch.allclose(scale_input(backbone, noisy, timestep), inputs, rtol=1e-3, atol=1e-3)


def test_timesteps_may_differ_between_images(backbone: Backbone) -> None:
    clean, noise = pair(backbone)
    together = add_noise(backbone, clean, noise, torch.tensor([0, 499.5, 999]))
    scaled = scale_input(backbone, together, [0, 499.5, 999])
    for row, timestep in enumerate((0, 499.5, 999)):
        alone = add_noise(backbone, clean[row : row + 1], noise[row : row + 1], timestep)
        assert torch.equal(alone[0], together[row])
        assert torch.equal(scale_input(backbone, alone, timestep)[0], scaled[row])


def test_half_a_timestep_lies_between_its_neighbours(tiny_pipeline_folder: Path) -> None:
    backbone = shared_backbone(tiny_pipeline_folder, scheduler="lms")
    clean, noise = pair(backbone)
    before, half, after = (add_noise(backbone, clean, noise, timestep) for timestep in (499, 499.5, 500))
    assert torch.allclose(half, (before + after) / 2, atol=1e-5)
    assert not torch.equal(before, after)


def test_precision_is_that_of_the_clean_latents(backbone: Backbone) -> None:
    clean, noise = pair(backbone)
    noisy = add_noise(backbone, clean.half(), noise, 999)
    assert noisy.dtype == torch.float16
    assert torch.isfinite(noisy).all()


def test_a_schedule_that_ends_in_pure_noise_gives_numbers(tiny_pipeline_folder: Path) -> None:
    backbone = load_backbone(str(tiny_pipeline_folder), device="cpu", scheduler="ddim")
    backbone.pipeline.scheduler.alphas_cumprod[-1] = 0
    clean, noise = pair(backbone)
    assert torch.allclose(add_noise(backbone, clean, noise, 999), noise, atol=1e-2)


def test_flow_matching_mixes_along_a_straight_line(flow: Backbone) -> None:
    clean, noise = pair(flow)
    assert torch.equal(add_noise(flow, clean, noise, 0), clean)
    assert torch.equal(add_noise(flow, clean, noise, 1000), noise)
    mixed = add_noise(flow, clean, noise, [250, 500, 750])
    for row, share in enumerate((0.25, 0.5, 0.75)):
        assert torch.allclose(mixed[row], (1 - share) * clean[row] + share * noise[row], atol=1e-6)
    assert torch.equal(scale_input(flow, mixed, 500), mixed)
    scheduler = fresh_scheduler(flow, STEPS)
    for timestep in scheduler.timesteps:
        theirs = scheduler.scale_noise(clean, timestep.expand(3), noise)
        assert torch.allclose(add_noise(flow, clean, noise, timestep), theirs, atol=1e-5)


def test_a_flow_trajectory_begins_with_noise_alone_at_the_shifted_timesteps(flow: Backbone) -> None:
    first = next(generate(flow, ["a ball"], [5], steps=2))
    expected = torch.randn((1, *flow.latent_shape), generator=torch.Generator().manual_seed(5))
    assert first.timestep == 1000
    assert torch.equal(first.noisy, expected)
    second = float(fresh_scheduler(flow, 2).timesteps[1])
    if type(flow.denoiser).__name__ == "SD3Transformer2DModel":
        smallest = 3 * 0.001 / (1 + 2 * 0.001)  # the schedule ends at the smallest of training, shifted by 3 once more
        assert second == pytest.approx(1000 * 3 * smallest / (1 + 2 * smallest), rel=1e-3)
    else:
        shift = math.exp(0.5 + (64 - 256) * (1.15 - 0.5) / (4096 - 256))  # of 8 x 8 tokens, half way
        assert second == pytest.approx(1000 * shift / (1 + shift), rel=1e-4)

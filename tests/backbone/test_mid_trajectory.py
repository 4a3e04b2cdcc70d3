"""Samplers that begin in the middle of a trajectory, where multistep methods have no earlier steps to build on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from diffprobe.backbone import trajectory
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.real_images import image_to_image, steps_taken
from diffprobe.backbone.trajectory import fresh_scheduler, generate, sample_steps

PROMPTS = ["a red ball", "two cubes, left and right"]
SEEDS = [7, 12345678]
CLEAN = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(0))

# Every sampler of diffusers for latents with a schedule of betas that asks the denoiser once a step.
SAMPLERS: list[tuple[str, dict[str, Any]]] = [
    ("LMSDiscreteScheduler", {}),
    ("LMSDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerDiscreteScheduler", {}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DDIMScheduler", {"clip_sample": False}),
    ("DDPMScheduler", {"clip_sample": False}),
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverSinglestepScheduler", {"lower_order_final": True}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3, "lower_order_final": True}),
    ("UniPCMultistepScheduler", {}),
    ("UniPCMultistepScheduler", {"solver_order": 3, "predict_x0": False, "final_sigmas_type": "sigma_min"}),
    ("DEISMultistepScheduler", {}),
    ("DEISMultistepScheduler", {"solver_order": 3}),
    ("SASolverScheduler", {"algorithm_type": "data_prediction"}),
    ("LCMScheduler", {"original_inference_steps": 100}),
    ("TCDScheduler", {"original_inference_steps": 100}),
]


def sampled_with(backbone: Backbone, sampler: str, **options: Any) -> Backbone:
    pipeline = type(backbone.pipeline)(**backbone.pipeline.components, requires_safety_checker=False)
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipeline.scheduler = getattr(diffusers, sampler)(**betas, **options)
    return replace(backbone, pipeline=pipeline)


def noise_level(scheduler: Any, index: int) -> float:
    """Standard deviation of the noise before a step, on clean latents of scale 1."""
    if hasattr(scheduler, "sigmas"):
        return float(scheduler.sigmas[index])
    kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[index])])
    return ((1 - kept) / kept) ** 0.5


@pytest.mark.parametrize(("sampler", "options"), SAMPLERS, ids=lambda value: str(value))
@pytest.mark.parametrize("strength", [0.2, 0.4])
def test_a_denoiser_that_knows_the_image_finds_it_again(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, sampler: str, options: dict[str, Any], strength: float
) -> None:
    """It says exactly which noise is on the image, so whatever the method and its order, only the image remains."""
    backbone = sampled_with(tiny_backbone, sampler, **options)
    scheduler = fresh_scheduler(backbone, 15)
    levels = iter([noise_level(scheduler, index) for index in steps_taken(15, strength)])

    def knows(denoiser: Any, inputs: Tensor, timestep: Any, conditions: Any) -> Tensor:
        level = next(levels)
        return (inputs * (1 + level**2) ** 0.5 - CLEAN) / level

    monkeypatch.setattr(trajectory, "evaluate", knows)
    last = list(image_to_image(backbone, CLEAN, SEEDS, strength=strength, steps=15))[-1].latents
    # What a sampler leaves on purpose at the end is the noise of timestep 0, of standard deviation 0.03.
    assert (last - CLEAN).std() < 0.04


def multistep(start: Tensor, derivatives: list[Tensor], levels: np.ndarray) -> list[np.ndarray]:
    """Adams-Bashforth from `start` on: the polynomial through the last derivatives, up to four, integrated exactly."""
    latents, found = start.double().numpy(), []
    known = [derivative.double().numpy() for derivative in derivatives]
    for step in range(len(derivatives)):
        first = max(0, step - 3)
        moved = np.zeros_like(latents)
        for own in range(first, step + 1):
            # Lagrange's polynomial of degree step - first that is 1 at the own level and 0 at the others.
            others = [level for place, level in enumerate(levels[first : step + 1], first) if place != own]
            lagrange = np.poly1d(others, r=True) / np.prod([levels[own] - other for other in others])
            integral = lagrange.integ()
            moved += known[own] * (integral(levels[step + 1]) - integral(levels[step]))
        latents = latents + moved
        found.append(latents)
    return found


def test_multistep_integrates_the_polynomial_through_the_derivatives_it_has(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.randn((6, *CLEAN.shape), generator=torch.Generator().manual_seed(1))
    predictions = iter(draws)
    monkeypatch.setattr(trajectory, "evaluate", lambda *arguments: next(predictions))
    steps = list(image_to_image(tiny_backbone, CLEAN, SEEDS, strength=0.6, steps=10))
    levels = fresh_scheduler(tiny_backbone, 10).sigmas.double().numpy()[4:]
    # Noise predicted is the derivative of latents with respect to the noise level (Karras et al. 2022, equation 3).
    for step, expected in zip(steps, multistep(steps[0].noisy, list(draws), levels), strict=True):
        assert torch.allclose(step.latents.double(), torch.from_numpy(expected), atol=1e-4)


def test_from_the_start_multistep_is_that_of_the_plain_scheduler(tiny_backbone: Backbone) -> None:
    whole = list(generate(tiny_backbone, PROMPTS, SEEDS, steps=6))
    alone = tiny_backbone.pipeline(
        PROMPTS,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        num_inference_steps=6,
        output_type="latent",
    ).images
    assert torch.equal(whole[-1].latents, alone)


@pytest.mark.parametrize(("options", "start"), [({"use_karras_sigmas": True}, 47), ({"use_beta_sigmas": True}, 0)])
def test_a_timestep_that_steps_share_does_not_shift_a_trajectory(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], start: int
) -> None:
    """DPM-Solver rounds timesteps, so that neighbours may be equal; yet each step has its own noise level."""
    backbone = sampled_with(tiny_backbone, "DPMSolverMultistepScheduler", **options)
    scheduler = fresh_scheduler(backbone, 50)
    assert scheduler.timesteps[start] == scheduler.timesteps[start + 1]
    monkeypatch.setattr(
        trajectory, "evaluate", lambda denoiser, inputs, timestep, conditions: torch.zeros(2, 4, 16, 16)
    )
    begin = torch.ones(2, 4, 16, 16)
    first = next(sample_steps(backbone, scheduler, begin, PROMPTS, [], range(start, 50)))
    # Without noise to take away, the first-order step only scales the image to its share at the next level.
    before, after = (1 / (1 + float(scheduler.sigmas[index]) ** 2) ** 0.5 for index in (start, start + 1))
    assert torch.allclose(first.latents, begin * after / before, rtol=1e-4)

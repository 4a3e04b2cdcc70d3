"""A sampler by name takes the noise schedule of the pipeline's own scheduler over, and nothing else of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch

from diffprobe.backbone.load import Backbone
from diffprobe.backbone.real_images import evaluate_noised
from diffprobe.backbone.samplers import SCHEDULERS, sampler_for
from diffprobe.backbone.trajectory import fresh_scheduler, generate
from diffprobe.errors import UserError

# A schedule that is no scheduler's default.
BETAS: dict[str, Any] = {
    "beta_start": 0.0007,
    "beta_end": 0.013,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
# Settings that belong to a sampler: solver, order, noise levels, spacing of timesteps.
EXOTIC: list[tuple[str, dict[str, Any]]] = [
    ("DEISMultistepScheduler", {"solver_order": 3, "use_karras_sigmas": True}),
    ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
    ("DPMSolverSinglestepScheduler", {"algorithm_type": "dpmsolver++", "lower_order_final": True}),
    ("SASolverScheduler", {"algorithm_type": "noise_prediction"}),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "trailing"}),
    ("KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    ("LCMScheduler", {"original_inference_steps": 100}),
    ("TCDScheduler", {}),
    ("DDPMScheduler", {"variance_type": "fixed_large"}),
    ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
]
SAME = {"steps_offset", "prediction_type", "beta_start", "beta_end", "beta_schedule", "num_train_timesteps"}
SAME |= {"clip_sample", "set_alpha_to_one"}  # of what a clean image is


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize(("own", "options"), EXOTIC, ids=lambda value: str(value))
def test_only_the_noise_schedule_is_taken_over(own: str, options: dict[str, Any], name: str) -> None:
    former = getattr(diffusers, own)(**BETAS, **options)
    made = sampler_for(former, name)
    assert type(made).__name__ == SCHEDULERS[name][0]
    assert torch.equal(made.alphas_cumprod, former.alphas_cumprod)
    assert made.config.prediction_type == "v_prediction"
    plain = type(made)()
    for key, value in plain.config.items():
        assert key.startswith("_") or key in SAME or made.config[key] == value, key
    made.set_timesteps(7)
    plain.set_timesteps(7)
    assert torch.equal(made.timesteps, plain.timesteps + made.config.steps_offset * (name == "ddim"))


def test_a_sampler_of_the_wanted_class_keeps_its_settings() -> None:
    own = diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True)
    made = sampler_for(own, "euler")
    assert {key: made.config[key] for key in own.config} == dict(own.config)


@pytest.mark.parametrize("own", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "IPNDMScheduler"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_noise_that_no_betas_describe_is_refused(own: str, name: str) -> None:
    with pytest.raises(UserError, match=f"own {own} has no noise schedule made of betas.*use scheduler=own"):
        sampler_for(getattr(diffusers, own)(), name)


def test_flow_matching_in_the_guise_of_a_diffusion_sampler_is_refused() -> None:
    own = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(UserError, match="no noise schedule made of betas"):
        sampler_for(own, "dpm++")


@pytest.mark.parametrize("name", ["ddim", "euler", "dpm++"])
def test_a_schedule_that_ends_in_pure_noise_is_walked_from_its_end(name: str) -> None:
    own = diffusers.TCDScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    made = sampler_for(own, name)
    assert torch.allclose(made.alphas_cumprod, own.alphas_cumprod, atol=1e-6)
    made.set_timesteps(10)
    assert made.timesteps[0] == 999
    assert made.timesteps[-1] == 99


def test_multistep_has_no_pure_noise_to_begin_at() -> None:
    own = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    with pytest.raises(UserError, match=r"scheduler=lms cannot follow .* DDIMScheduler \(it ends in pure noise\); use"):
        sampler_for(own, "lms")


def test_betas_that_a_sampler_does_not_know_are_named() -> None:
    own = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    with pytest.raises(UserError, match=r"scheduler=lms cannot follow .* DDPMScheduler \(sigmoid is not implemented"):
        sampler_for(own, "lms")


def sampled_with(backbone: Backbone, scheduler: Any) -> Backbone:
    pipeline = type(backbone.pipeline)(**backbone.pipeline.components, requires_safety_checker=False)
    pipeline.scheduler = scheduler
    return replace(backbone, pipeline=pipeline)


@pytest.mark.parametrize(
    ("scheduler", "steps", "said"),
    [
        (diffusers.LCMScheduler(), 60, "LCMScheduler cannot take 60 steps"),
        (diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), 4, "draws noise that no seed determines"),
        (
            diffusers.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"),
            4,
            "DDIMScheduler begins at pure noise",
        ),
    ],
)
def test_samplers_that_would_give_no_image_are_refused(
    tiny_backbone: Backbone, scheduler: Any, steps: int, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        generate(sampled_with(tiny_backbone, scheduler), ["a ball"], [1], steps=steps)


def test_real_images_need_noise_of_timesteps(tiny_backbone: Backbone) -> None:
    backbone = sampled_with(tiny_backbone, diffusers.EDMEulerScheduler())
    fresh_scheduler(backbone, 4)  # it generates
    with pytest.raises(UserError, match="EDMEulerScheduler has no noise schedule made of betas"):
        evaluate_noised(backbone, torch.zeros(1, 4, 16, 16), [1], [10], ["mid_block"])

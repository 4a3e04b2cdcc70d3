"""Samplers by name, each with the noise schedule that a pipeline's denoiser was trained on."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from diffprobe.errors import UserError

OWN_SCHEDULER = "own"  # the pipeline's own scheduler

# Class of diffusers, and what Stable Diffusion sets where the pipeline's own scheduler has no such setting.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lms": ("LMSDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
}

# What makes up the noise schedule a denoiser was trained on, and what it learnt to predict.
TRAINED_ON = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
PREDICTIONS = ("epsilon", "v_prediction", "sample")

# What else is the model's and not the sampler's: where its timesteps are counted from, what its clean end is, and the
# range of its images (models in pixel space).
MODEL_SETTINGS = (
    "steps_offset",
    "set_alpha_to_one",
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
)


def sampler_for(own: Any, name: str) -> Any:
    """The sampler called `name` for a denoiser whose pipeline came with the scheduler `own`.

    Of `own` only the noise schedule and what else is the model's is taken over. Which timesteps are visited, Karras'
    noise levels, orders and solvers are the sampler's: Stable Diffusion 1.4's own PNDM, once saved again, would
    otherwise impose its spacing of timesteps on LMS, and the images would no longer be the papers'. But a schedule
    that ends in pure noise (zero terminal SNR) has to be walked from its very end, so there the spacing is taken over.
    An own scheduler of the wanted class stays as it is.

    Args:
        name: one of SCHEDULERS.

    Raises:
        UserError: `own` has no schedule of betas, or one that this sampler cannot follow.
    """
    import diffusers

    class_name, defaults = SCHEDULERS[name]
    kind, config = type(own).__name__, own.config
    if kind == class_name:
        return type(own).from_config({**defaults, **config})
    check_betas(own)
    keys = [*TRAINED_ON, *MODEL_SETTINGS]
    if config.get("rescale_betas_zero_snr"):
        keys.append("timestep_spacing")
    settings = {**defaults, **{key: config[key] for key in keys if key in config}}
    wanted: Any = getattr(diffusers, class_name)
    takes = inspect.signature(wanted.__init__).parameters
    try:
        sampler = wanted(**{key: value for key, value in settings.items() if key in takes})
    except (NotImplementedError, ValueError) as error:  # a schedule of betas that only some schedulers have
        raise _cannot(name, own, str(error)) from error
    if not torch.allclose(sampler.alphas_cumprod.cpu(), own.alphas_cumprod.cpu(), rtol=1e-3, atol=1e-6):
        ends = "it ends in pure noise" if float(own.alphas_cumprod[-1]) < 1e-6 else "the betas come out otherwise"
        raise _cannot(name, own, ends)
    return sampler


def check_betas(own: Any) -> None:
    """Raises UserError if a scheduler has no schedule of betas with one of the usual predictions."""
    if not has_betas(own):
        raise UserError(
            f"the pipeline's own {type(own).__name__} has no noise schedule made of betas, which other samplers, "
            f"noised real images and inversion need; use scheduler={OWN_SCHEDULER} and generation"
        )


def has_betas(own: Any) -> bool:
    """Whether a scheduler's noise is that of a schedule of betas: not flow matching, and not EDM's."""
    config: Mapping[str, Any] = own.config
    return (
        hasattr(own, "alphas_cumprod")
        and config.get("prediction_type", "epsilon") in PREDICTIONS
        and not config.get("use_flow_sigmas")
    )


def _cannot(name: str, own: Any, why: str) -> UserError:
    others = ", ".join(other for other in SCHEDULERS if other != name)
    return UserError(
        f"scheduler={name} cannot follow the noise schedule of the pipeline's own {type(own).__name__} ({why}); "
        f"use scheduler={OWN_SCHEDULER}, or one of {others}"
    )

"""Samplers: by name with the noise schedule that a denoiser was trained on, and one step of any of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffprobe.errors import UserError

OWN_SCHEDULER = "own"  # the pipeline's own scheduler

# Class of diffusers, and Stable Diffusion's settings where the pipeline's own scheduler has none.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "lms": ("LMSDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
}

# Settings of the noise schedule that a denoiser was trained on, and of what it predicts.
TRAINED_ON = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
# Other settings of the model and not of the sampler: where timesteps are counted from, the clean end, and the range of
# images (models in pixel space).
_MODEL_SETTINGS = (
    "steps_offset",
    "set_alpha_to_one",
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
)
_LMS_ORDER = 4


def sampler_for(own: Any, name: str) -> Any:
    """The sampler called `name` for a denoiser whose pipeline came with the scheduler `own`.

    From `own` it takes the noise schedule and other settings of the model. Spacing of timesteps, noise levels, orders
    and solvers are the sampler's own: with those of Stable Diffusion 1.4's PNDM, LMS would not give the papers' images.
    A schedule that ends in pure noise (zero terminal SNR) keeps its spacing, since sampling must begin at its end. If
    `own` is of the wanted class, it stays as it is.

    Raises:
        UserError: `own` has no schedule of betas, or one that this sampler cannot follow.
    """
    import diffusers

    class_name, defaults = SCHEDULERS[name]
    own_name, config = type(own).__name__, own.config
    if own_name == class_name:
        return type(own).from_config({**defaults, **config})
    check_betas(own)
    spacing = ["timestep_spacing"] if config.get("rescale_betas_zero_snr") else []
    keys = [*TRAINED_ON, *_MODEL_SETTINGS, *spacing]
    settings = {**defaults, **{key: config[key] for key in keys if key in config}}
    wanted: Any = getattr(diffusers, class_name)
    known = inspect.signature(wanted.__init__).parameters
    why = ""
    try:
        sampler = wanted(**{key: value for key, value in settings.items() if key in known})
    except (NotImplementedError, ValueError) as error:  # a schedule of betas that only some schedulers have
        why = str(error)
    else:
        if torch.allclose(sampler.alphas_cumprod.cpu(), own.alphas_cumprod.cpu(), rtol=1e-3, atol=1e-6):
            return sampler
        why = "it ends in pure noise" if float(own.alphas_cumprod[-1]) < 1e-6 else "the betas come out otherwise"
    raise UserError(
        f"scheduler={name} cannot follow the noise schedule of the pipeline's own {own_name} ({why}); "
        f"use scheduler={OWN_SCHEDULER}, or one of {', '.join(other for other in SCHEDULERS if other != name)}"
    )


def check_betas(own: Any) -> None:
    """Raises UserError if a scheduler has no schedule of betas with one of the usual predictions."""
    if not has_betas(own):
        raise UserError(
            f"the pipeline's own {type(own).__name__} has no noise schedule made of betas, which other samplers, "
            f"noised real images and inversion need; use scheduler={OWN_SCHEDULER} and generation"
        )


def has_betas(own: Any) -> bool:
    """Whether a scheduler's noise follows a schedule of betas: not flow matching, and not EDM's."""
    return (
        hasattr(own, "alphas_cumprod")
        and own.config.get("prediction_type", "epsilon") in ("epsilon", "v_prediction", "sample")
        and not own.config.get("use_flow_sigmas")
    )


def begin_at(scheduler: Any, index: int) -> None:
    """Sets the first step; without, a scheduler searches it by its timestep, which several steps may share."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def take_step(
    scheduler: Any,
    predicted: Tensor,
    timestep: Any,
    noisy: Tensor,
    generators: Sequence[torch.Generator] = (),
    eta: float | None = None,
) -> Tensor:
    """The latents after one step, [batch, channels, h, w].

    LMS uses the derivatives of this step and of up to three before it. The scheduler of diffusers takes their number
    from the step's place in the trajectory, which is wrong in one that begins in the middle; here it is the number of
    derivatives at hand. All other multistep samplers count those themselves.

    Args:
        predicted: the denoiser's prediction for `noisy` at `timestep`; both [batch, channels, h, w].
        generators: one an image, for samplers that add noise.
        eta: share of the noise that is drawn anew, for samplers that take it (DDIM, TCD); None for their default.
    """
    known = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {}
    if generators and "generator" in known:
        options["generator"] = list(generators)
    if eta is not None and "eta" in known:
        options["eta"] = eta
    if "order" in known:
        options["order"] = min(_LMS_ORDER, len(scheduler.derivatives) + 1)
    return scheduler.step(predicted, timestep, noisy, **options, return_dict=False)[0]

"""One step of a sampler, as the pipelines of diffusers take it, and right wherever a trajectory begins."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LMS_ORDER = 4


def take_step(
    scheduler: Any,
    predicted: Tensor,
    timestep: Any,
    noisy: Tensor,
    generators: Sequence[torch.Generator] = (),
    eta: float | None = None,
) -> Tensor:
    """The latents after one step, [batch, channels, h, w].

    LMS (linear multistep) fits a polynomial through the derivatives of this step and of up to three before it. The
    scheduler of diffusers goes by the step's place in the trajectory and not by the derivatives that it has, so that
    a trajectory which begins at step 3, say, would add up the first of four coefficients and lack the other three.
    Here the order is at most the number of derivatives at hand. All other multistep samplers count those themselves.

    Args:
        scheduler: at this step.
        predicted: what the denoiser says of `noisy` at `timestep`; both [batch, channels, h, w].
        generators: one an image, for samplers that add noise.
        eta: share of the noise that is drawn anew, for samplers that take it (DDIM, TCD); None: their own default.
    """
    takes = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {}
    if generators and "generator" in takes:
        options["generator"] = list(generators)
    if eta is not None and "eta" in takes:
        options["eta"] = eta
    if "order" in takes:
        options["order"] = min(LMS_ORDER, len(scheduler.derivatives) + 1)
    return scheduler.step(predicted, timestep, noisy, **options, return_dict=False)[0]


def begin_at(scheduler: Any, index: int) -> None:
    """Tells a scheduler that has not begun its first step, instead of letting it look for a timestep that several
    steps may share."""
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)

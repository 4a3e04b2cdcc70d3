"""DDIM inversion: a real image walked up to the noise that it would come from, with activations on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from diffprobe.backbone.capture import capture
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.noising import checked_prompts
from diffprobe.backbone.samplers import TRAINED_ON, has_betas
from diffprobe.backbone.trajectory import TrajectoryStep, sample_steps
from diffprobe.errors import UserError


def invert(
    backbone: Backbone,
    latents: Tensor,
    prompts: Sequence[str] | None = None,
    *,
    steps: int = 50,
    layers: Sequence[str] = (),
) -> Iterator[TrajectoryStep]:
    """Runs deterministic DDIM backwards, from the clean latents of real images to their noise, and yields every step.

    Each step from one noise level to the next takes the denoiser's prediction for the latents of the lower level and
    the timestep of the higher one, on the prompt alone (guidance 1): Song et al. 2021 (arXiv 2010.02502), as used by
    Mokady et al. 2022 (arXiv 2211.09794). Nothing is random. More steps invert better; half precision inverts worse.
    The sampler is DDIM with the backbone's noise schedule, whatever sampler the backbone generates with.

    Args:
        latents: of clean images, [batch, channels, h, w], as `encode_images` gives them.
        prompts: one caption an image; None for empty ones.
        steps: number of evaluations of the denoiser.
        layers: full names of the layers whose activations to take.

    Yields:
        `TrajectoryStep` with `index` and `timestep` from the clean end (index 0 has the smallest timestep); `noisy`
        what the denoiser was asked about, `latents` one noise level higher; `images` None. The last step's `latents`
        are the inverted image.

    Raises:
        UserError: the arguments do not fit together or are impossible, or the denoiser was not trained on a
            schedule of betas (flow matching).
    """
    return _start(backbone, ddim_scheduler(backbone, steps, inverse=True), latents, prompts, layers)


def reconstruct(
    backbone: Backbone,
    latents: Tensor,
    prompts: Sequence[str] | None = None,
    *,
    steps: int = 50,
    layers: Sequence[str] = (),
    decode: bool = False,
) -> Iterator[TrajectoryStep]:
    """The way back: deterministic DDIM without guidance, from what `invert` ended with at the same prompts and steps.

    Yields:
        `TrajectoryStep` as `generate` does: index 0 is the noisiest, the last step's `latents` and `images` (where
        `decode`) are the reconstruction.

    Raises:
        UserError: as `invert`.
    """
    return _start(backbone, ddim_scheduler(backbone, steps), latents, prompts, layers, decode)


def ddim_scheduler(backbone: Backbone, steps: int, *, inverse: bool = False) -> Any:
    """A DDIM scheduler, or the inverse one, at its start: the backbone's noise schedule, timesteps as the papers'.

    That is `leading` spacing, and Stable Diffusion's settings for latents: predictions are not clipped, and the clean
    end has the noise of timestep 0.

    Raises:
        UserError: an impossible number of steps, or a denoiser that was not trained on a schedule of betas.
    """
    from diffusers import DDIMInverseScheduler, DDIMScheduler

    own: Any = backbone.pipeline.scheduler.config
    if not has_betas(backbone.pipeline.scheduler):
        raise UserError(f"DDIM needs a denoiser trained on a schedule of betas; that of {backbone.name} was not")
    trained = own["num_train_timesteps"]
    if not 1 <= steps <= trained:
        raise UserError(f"{steps} sampling steps; use 1 to {trained}")
    offset = min(own.get("steps_offset", 0), trained - 1 - (steps - 1) * (trained // steps))  # all stay below trained
    scheduler: Any = (DDIMInverseScheduler if inverse else DDIMScheduler)(
        **{key: own[key] for key in TRAINED_ON if key in own},
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=offset,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps, device=backbone.device)
    return scheduler


def _start(
    backbone: Backbone,
    scheduler: Any,
    latents: Tensor,
    prompts: Sequence[str] | None,
    layers: Sequence[str],
    decode: bool = False,
) -> Iterator[TrajectoryStep]:
    captions = checked_prompts(latents, prompts)
    capture(backbone.denoiser, layers)  # unknown layers are an error now, not at the first step
    start = latents.to(backbone.device, backbone.dtype)
    indices = range(len(scheduler.timesteps))
    return sample_steps(backbone, scheduler, start, captions, list(layers), indices, decode=decode)

"""DDIM inversion: a real image walked up to the noise that it would come from, with activations on the way.

Image to image: a little noise on a real image, then the last steps of sampling, with activations on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffprobe.backbone.capture import HALVES, add_noise, capture
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.noising import checked_prompts
from diffprobe.backbone.samplers import TRAINED_ON, has_betas
from diffprobe.backbone.trajectory import TrajectoryStep, begin_at, fresh_scheduler, sample_steps
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


def image_to_image(
    backbone: Backbone,
    latents: Tensor,
    seeds: Sequence[int],
    prompts: Sequence[str] | None = None,
    *,
    strength: float,
    steps: int = 15,
    layers: Sequence[str] = (),
    half: str = "conditional",
    decode: bool = False,
) -> Iterator[TrajectoryStep]:
    """Noises clean latents and denoises them again, and yields every step that is taken.

    Which steps these are, `steps_taken` says. The loop is that of diffusers' `StableDiffusionImg2ImgPipeline`, which
    gives the same when it is called with these latents as its image and one CPU generator per image. (Called with
    pictures, it draws latents from the VAE's posterior; `encode_images` takes the mean.) Not so with LMS, whose first
    step diffusers takes too long here, see `take_step`.

    Args:
        latents: of clean images, [batch, channels, h, w], as `encode_images` gives them.
        seeds: one an image, of its noise; `seed_of(name)` where images have names and no seeds.
        prompts: one caption an image; None for empty ones, which are sampled without guidance where it has no effect:
            not with Stable Diffusion XL, whose unconditional half is zeros and not the empty prompt.
        strength: share of the sampling steps to take, over 0 and at most 1.
        steps: number of sampling steps of which these are the last.
        layers: full names of the layers whose activations to take.
        half: 'conditional', 'unconditional' or 'both'. Without guidance there is the conditional one only.
        decode: also decode the latents after every step.

    Yields:
        `TrajectoryStep` as `generate` does; `index` counts from the start of the whole trajectory, so that a step has
        the same index and timestep as in generation.

    Raises:
        UserError: the arguments do not fit together, or one of them is impossible.
    """
    captions = checked_prompts(latents, prompts)
    if len(seeds) != len(latents):
        raise UserError(f"{len(seeds)} seeds for {len(latents)} images; give one seed per image")
    taken = steps_taken(steps, strength)
    guided = backbone.guidance_matters(captions) or (backbone.guided and half != "conditional")
    if half not in HALVES or (half == "unconditional" and not guided):
        raise UserError(f"no half {half!r} at guidance {backbone.guidance}; use one of {', '.join(HALVES)}")
    capture(backbone.denoiser, layers)  # unknown layers are an error now, not at the first step
    scheduler = fresh_scheduler(backbone, steps)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noisy = _noised(backbone, scheduler, latents.to(backbone.device, backbone.dtype), taken.start, generators)
    return sample_steps(backbone, scheduler, noisy, captions, list(layers), taken, generators, half, guided, decode)


def _noised(
    backbone: Backbone, scheduler: Any, clean: Tensor, start: int, generators: Sequence[torch.Generator]
) -> Tensor:
    """Clean latents with the noise that a trajectory has before step `start`."""
    noise = torch.cat([torch.randn((1, *clean.shape[1:]), generator=generator) for generator in generators]).to(clean)
    timestep = scheduler.timesteps[start]
    begin_at(scheduler, start)
    if not hasattr(scheduler, "add_noise"):  # flow matching
        return add_noise(backbone, clean, noise, timestep)
    # The scheduler's own, not a function of the timestep: with Karras sigmas, say, its levels are not training's.
    return scheduler.add_noise(clean, noise, timestep.repeat(len(clean)))


def steps_taken(steps: int, strength: float) -> range:
    """The 0-based indices of the last int(steps * strength) of `steps` sampling steps, as diffusers counts them.

    The product is rounded down: strength 0.29 of 100 steps takes 28 of them, since 0.29 * 100 < 29 in floating point.

    Raises:
        UserError: strength is not over 0 and at most 1, or too small for a single step.
    """
    if steps < 1 or not 0 < strength <= 1:
        raise UserError(
            f"strength {strength} of {steps} steps: strength must be over 0 and at most 1, steps at least 1"
        )
    count = int(steps * strength)
    if count < 1:
        raise UserError(f"strength {strength} of {steps} steps is less than one step; use at least {1 / steps:.3g}")
    return range(steps - count, steps)

"""Image to image: a little noise on a real image, then the last steps of sampling, with activations on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from diffprobe.backbone.calls import add_noise
from diffprobe.backbone.capture import HALVES, capture
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.noising import checked_prompts
from diffprobe.backbone.trajectory import TrajectoryStep, begin_at, fresh_scheduler, sample_steps
from diffprobe.errors import UserError


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

"""Real images in the denoiser: noised and evaluated once a timestep, inverted to their noise, or denoised again.

`latents` are those of clean images, [batch, channels, h, w], from `encode_images`; `prompts` one caption an image, or
None for empty ones; `layers` full names of the layers whose activations to take; `seeds` one an image, of its noise,
`seed_of(name)` where images have names and no seeds. `UserError` is raised at once for arguments that do not fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.capture import add_noise, capture, encode_prompts, scale_input
from diffprobe.backbone.families import Conditions
from diffprobe.backbone.finite import at_step
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.samplers import TRAINED_ON, begin_at, check_betas, has_betas
from diffprobe.backbone.trajectory import (
    TrajectoryStep,
    check_half,
    fresh_scheduler,
    normal_noise,
    partial_activations,
    sample_steps,
)
from diffprobe.errors import UserError

NOISES = ("seeded", "off")


def evaluate_noised(
    backbone: Backbone,
    latents: Tensor,
    seeds: Sequence[int],
    timesteps: Sequence[float],
    layers: Sequence[str],
    *,
    prompts: Sequence[str] | None = None,
    noise: str = "seeded",
    draws: int = 1,
    denoiser: nn.Module | None = None,
) -> Iterator[TrajectoryStep]:
    """Evaluates the denoiser on noised images and yields the activations at every timestep, in the order given.

    Each (image, timestep, draw) is evaluated once, without guidance, up to the last wanted layer. An image's noise is
    a function of its seed and the draw alone: the same at every timestep, in every batch, on every device.

    Args:
        timesteps: from 0 to the last one of training (999; 1000 in flow matching), whole or not, in any order.
        noise: 'seeded', or 'off': the clean latents, which only timestep 0 stands for.
        draws: evaluations with different noise whose activations are averaged; the mean is float32.
        denoiser: in place of the backbone's, such as one with permuted weights.

    Yields:
        `TrajectoryStep` with `index` the position in `timesteps`; `noisy` of the first draw (clean latents where noise
        is off); `latents` the clean latents; `images` None.
    """
    check_noise(backbone)
    captions = _checked_prompts(latents, prompts)
    _check_seeds(latents, seeds)
    check_noising(backbone, timesteps, noise, draws)
    network = denoiser if denoiser is not None else backbone.denoiser
    capture(network, layers, stop=True)  # unknown layers are an error now, not at the first evaluation
    noises = [None] if noise == "off" else list(draw_noise(seeds, tuple(latents.shape[1:]), draws))

    def evaluated() -> Iterator[TrajectoryStep]:
        with torch.no_grad():
            conditions = encode_prompts(backbone, captions, guided=False)
        clean = latents.to(backbone.device, backbone.dtype)
        for index, timestep in enumerate(timesteps):
            yield _evaluate_noised(backbone, network, clean, noises, index, timestep, conditions, layers)

    return evaluated()


@torch.no_grad()
def _evaluate_noised(
    backbone: Backbone,
    denoiser: nn.Module,
    clean: Tensor,
    noises: Sequence[Tensor | None],
    index: int,
    timestep: float,
    conditions: Conditions,
    layers: Sequence[str],
) -> TrajectoryStep:
    first = clean
    mean: dict[str, Tensor] = {}
    time = torch.tensor(timestep, device=backbone.device)
    for draw, noise in enumerate(noises):
        noisy = clean if noise is None else add_noise(backbone, clean, noise.to(clean.device), timestep)
        inputs = clean if noise is None else scale_input(backbone, noisy, timestep)
        first = noisy if draw == 0 else first
        activations = partial_activations(backbone, denoiser, inputs, time, conditions, layers, at_step(None, timestep))
        if len(noises) == 1:
            return TrajectoryStep(index, float(timestep), first, clean, activations, None)
        for name, values in activations.items():
            mean[name] = mean[name].add_(values) if name in mean else values.float()
    for values in mean.values():
        values.div_(len(noises))
    return TrajectoryStep(index, float(timestep), first, clean, mean, None)


def draw_noise(seeds: Sequence[int], shape: tuple[int, ...], draws: int = 1) -> Tensor:
    """Standard normal noise [draws, len(seeds), *shape] in float32, each image from its own generator on the CPU.

    The first draw is the noise that `generate` begins with; more draws leave the earlier ones as they are.
    """
    generators = _generators(seeds)
    return torch.stack([normal_noise(generators, shape) for _ in range(draws)])


def seed_of(name: str) -> int:
    """A seed from an image's name, the same on every machine; torch's CPU generator uses 32 bits."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")


def check_noise(backbone: Backbone) -> None:
    """Raises UserError if training timesteps do not determine how much noise there is in an image."""
    if not backbone.family.flow_matching:
        check_betas(backbone.pipeline.scheduler)


def check_noising(backbone: Backbone, timesteps: Sequence[float], noise: str = "seeded", draws: int = 1) -> None:
    """Raises UserError for timesteps that the model does not have, or that do not fit the noise and its draws."""
    if noise not in NOISES:
        raise UserError(f"no noise {noise!r}; use one of {', '.join(NOISES)}")
    if draws < 1 or (noise == "off" and draws > 1):
        raise UserError(f"{draws} draws of noise with noise {noise!r}; at least 1, and exactly 1 where noise is off")
    # Flow matching ends at pure noise, timestep 1000; a schedule of betas has as many levels, counted from 0.
    last = backbone.pipeline.scheduler.config.num_train_timesteps - (not backbone.family.flow_matching)
    bad = [timestep for timestep in timesteps if not 0 <= timestep <= last]
    if bad or not timesteps:
        raise UserError(f"timesteps {bad or 'none'}: choose from 0 to {last}")
    if len(set(timesteps)) < len(timesteps):
        raise UserError(f"timesteps {list(timesteps)}: one is there twice; give each once")
    if noise == "off" and any(timesteps):
        raise UserError(
            f"timesteps {list(timesteps)} with noise off: a clean image belongs to timestep 0 alone; "
            "use timesteps=[0], or noise=seeded"
        )


def invert(
    backbone: Backbone,
    latents: Tensor,
    prompts: Sequence[str] | None = None,
    *,
    steps: int = 50,
    layers: Sequence[str] = (),
) -> Iterator[TrajectoryStep]:
    """Runs deterministic DDIM backwards, from the clean latents of real images to their noise, and yields every step.

    Each step to the next noise level takes the prediction for the latents of the lower level at the timestep of the
    higher one, without guidance: Song et al. 2021 (arXiv 2010.02502), as used by Mokady et al. 2022 (arXiv
    2211.09794). The sampler is DDIM with the backbone's noise schedule, whatever sampler the backbone generates with.
    More steps invert better; half precision inverts worse.

    Yields:
        `TrajectoryStep` from the clean end (index 0 has the smallest timestep); `latents` are one noise level above
        `noisy`, those of the last step the inverted image; `images` None.

    Raises:
        UserError: also if the denoiser was not trained on a schedule of betas (flow matching).
    """
    return _ddim_steps(backbone, latents, prompts, layers, ddim_scheduler(backbone, steps, inverse=True))


def reconstruct(
    backbone: Backbone,
    latents: Tensor,
    prompts: Sequence[str] | None = None,
    *,
    steps: int = 50,
    layers: Sequence[str] = (),
    decode: bool = False,
) -> Iterator[TrajectoryStep]:
    """Deterministic DDIM without guidance, from the last latents of `invert` at the same prompts and steps.

    Yields steps as `generate` does; the last one's `latents` and, with `decode`, `images` are the reconstruction.
    """
    return _ddim_steps(backbone, latents, prompts, layers, ddim_scheduler(backbone, steps), decode=decode)


def _ddim_steps(
    backbone: Backbone,
    latents: Tensor,
    prompts: Sequence[str] | None,
    layers: Sequence[str],
    scheduler: Any,
    decode: bool = False,
) -> Iterator[TrajectoryStep]:
    captions = _checked_prompts(latents, prompts)
    capture(backbone.denoiser, layers)  # unknown layers are an error now, not at the first step
    start = latents.to(backbone.device, backbone.dtype)
    indices = range(len(scheduler.timesteps))
    return sample_steps(backbone, scheduler, start, captions, layers, indices, decode=decode)


def ddim_scheduler(backbone: Backbone, steps: int, *, inverse: bool = False) -> Any:
    """A DDIM scheduler, or the inverse one, at its start, with the backbone's noise schedule.

    Timesteps have `leading` spacing, as in the papers; predictions are not clipped, and the clean end has the noise of
    timestep 0, as in Stable Diffusion.

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
    """Noises clean latents and denoises them again in the steps of `steps_taken`; yields every step.

    The same as diffusers' `StableDiffusionImg2ImgPipeline` called with these latents as its image and one CPU
    generator per image, except with LMS (see `take_step`).

    Empty prompts are sampled without guidance where it has no effect (see `Backbone.guidance_matters`).

    Args:
        strength: share of the sampling steps to take, over 0 and at most 1.
        steps: number of sampling steps of which these are the last.
        half: 'conditional', 'unconditional' or 'both'. Without guidance there is the conditional one only.
        decode: also decode the latents after every step.

    Yields:
        `TrajectoryStep` as `generate` does; `index` counts from the start of the whole trajectory.
    """
    captions = _checked_prompts(latents, prompts)
    _check_seeds(latents, seeds)
    taken = steps_taken(steps, strength)
    guided = backbone.guidance_matters(captions) or (backbone.guided and half != "conditional")
    check_half(backbone, half, guided)
    capture(backbone.denoiser, layers)  # unknown layers are an error now, not at the first step
    scheduler = fresh_scheduler(backbone, steps)
    generators = _generators(seeds)
    clean = latents.to(backbone.device, backbone.dtype)
    noise = normal_noise(generators, tuple(clean.shape[1:])).to(clean)
    timestep = scheduler.timesteps[taken.start]
    begin_at(scheduler, taken.start)
    if hasattr(scheduler, "add_noise"):  # whose noise levels may differ from training's (Karras sigmas)
        noisy = scheduler.add_noise(clean, noise, timestep.repeat(len(clean)))
    else:  # flow matching
        noisy = add_noise(backbone, clean, noise, timestep)
    return sample_steps(
        backbone, scheduler, noisy, captions, layers, taken, generators, half=half, guided=guided, decode=decode
    )


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


def _generators(seeds: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def _check_seeds(latents: Tensor, seeds: Sequence[int]) -> None:
    if len(seeds) != len(latents):
        raise UserError(f"{len(seeds)} seeds for {len(latents)} images; give one seed per image")


def _checked_prompts(latents: Tensor, prompts: Sequence[str] | None) -> list[str]:
    """One prompt an image, empty ones where none are given."""
    if latents.ndim != 4 or not len(latents):
        raise UserError(f"latents of shape {list(latents.shape)}; they must be [images, channels, height, width]")
    if prompts is not None and len(prompts) != len(latents):
        raise UserError(f"{len(prompts)} prompts for {len(latents)} images; give one prompt per image, or none at all")
    return [""] * len(latents) if prompts is None else list(prompts)

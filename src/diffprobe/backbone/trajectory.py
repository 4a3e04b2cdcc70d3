"""Sampling trajectories: from prompts and seeds to latents, activations and images after every step.

One step of a sampler, as the pipelines of diffusers take it, and right wherever a trajectory begins.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.capture import HALVES, capture, decode_latents, encode_prompts, evaluate
from diffprobe.backbone.finite import at_step, check_finite, layer_values, naming_images
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError, one_line

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


Replacements = Mapping[int, Mapping[str, Callable[[Tensor], Tensor]]]
"""Step -> layer -> what takes the place of its output, as `replace` of `capture`."""

UNCHANGED: Replacements = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class TrajectoryStep:
    """One step of a batch of trajectories.

    `noisy` is what the denoiser was asked about, [batch, channels, h, w], before the scheduler's input scaling;
    `latents` the same after the step. `activations` are [batch, channels, height, width] by layer (twice the batch,
    unconditional first, for both halves). `images` decodes `latents`: [batch, 3, H, W] in [0, 1], or None.
    """

    index: int
    timestep: float
    noisy: Tensor
    latents: Tensor
    activations: dict[str, Tensor]
    images: Tensor | None


def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int = 15,
    layers: Sequence[str] = (),
    half: str = "conditional",
    decode: bool = False,
    replace: Replacements = UNCHANGED,
) -> Iterator[TrajectoryStep]:
    """Samples one image per prompt and seed, and yields every step.

    The protocol of Chen, Viegas and Wattenberg 2023 (arXiv 2306.05720): noise from a CPU generator per image,
    classifier-free guidance with the empty prompt. An image is a function of (model, prompt, seed, sampler, steps):
    batch size and device do not matter, and the model's own pipeline called with one CPU generator per image gives
    the same. A model without text makes its images from the seeds alone.

    Args:
        steps: number of sampling steps; one evaluation of the denoiser each, on the guidance batch.
        layers: full names of the layers whose activations to take.
        half: 'conditional', 'unconditional' or 'both'. Without guidance there is the conditional one only.
        decode: also decode the latents after every step.
        replace: by step, from 0, and layer: functions from a layer's whole output batch (unconditional half first,
            where guided) to what shall go on through the network instead. Denoising goes on from there.

    Raises:
        UserError: no prompts, as many seeds as prompts not given, or an impossible number of steps, layer or half.
    """
    if not prompts or len(prompts) != len(seeds):
        raise UserError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt, at least one")
    guided = backbone.guided
    if half not in HALVES or (half == "unconditional" and not guided):
        why = f"at guidance {backbone.guidance}" if backbone.family.guided(2) else "of a model without guidance batch"
        raise UserError(f"no half {half!r} {why}; use one of {', '.join(HALVES)}")
    replaced = {name: function for by_layer in replace.values() for name, function in by_layer.items()}
    capture(backbone.denoiser, layers, replace=replaced)  # unknown layers are an error now, not at the first step
    scheduler = fresh_scheduler(backbone, steps)
    if any(not 0 <= step < steps for step in replace):
        raise UserError(f"activations to be replaced at steps {sorted(replace)} of {steps}, counted from 0")
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    latents = _noise(generators, backbone.latent_shape) * getattr(scheduler, "init_noise_sigma", 1.0)
    latents = latents.to(backbone.device, backbone.dtype)
    indices = range(len(scheduler.timesteps))
    options = (generators, half, guided, decode, replace)
    return sample_steps(backbone, scheduler, latents, list(prompts), list(layers), indices, *options)


def sample_steps(
    backbone: Backbone,
    scheduler: Any,
    latents: Tensor,
    prompts: list[str],
    layers: list[str],
    indices: range,
    generators: Sequence[torch.Generator] = (),
    half: str = "conditional",
    guided: bool = False,
    decode: bool = False,
    replace: Replacements = UNCHANGED,
) -> Iterator[TrajectoryStep]:
    """Takes the steps `indices` of a scheduler that has not begun, from latents [batch, channels, h, w] on.

    Samplers that add noise on the way take each image's from its generator. `indices` may begin in the middle.

    Raises:
        NotFinite: latents, activations or decoded images hold NaN or infinity.
    """
    with torch.no_grad():
        conditions = encode_prompts(backbone, prompts, guided=guided)
    begin_at(scheduler, indices.start)

    @torch.no_grad()
    def take(index: int, noisy: Tensor) -> TrajectoryStep:
        timestep = scheduler.timesteps[index]
        inputs = _scaled(scheduler, torch.cat([noisy, noisy]) if guided else noisy, timestep)
        edits = replace.get(index, {})
        with capture(backbone.denoiser, layers, half=half, guided=guided, replace=edits) as taken:
            predicted = evaluate(backbone.denoiser, inputs, timestep, conditions)
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + backbone.guidance * (conditional - unconditional)
        after = take_step(scheduler, predicted, timestep, noisy, generators, backbone.family.eta)
        when = at_step(index, timestep)
        values = {**layer_values(taken.activations), "the latents": after}
        check_finite(backbone, values, images=len(after), network=backbone.denoiser, when=when, edited=bool(replace))
        with naming_images((), when):
            images = decode_latents(backbone, after) if decode else None
        return TrajectoryStep(index, float(timestep), noisy, after, taken.activations, images)

    for index in indices:
        step = take(index, latents)
        latents = step.latents
        yield step
        del step  # what the caller does not keep is gone before the next is made


def replay(
    backbone: Backbone,
    denoiser: nn.Module,
    prompts: Sequence[str],
    noisy: Tensor,
    indices: Sequence[int],
    *,
    scheduler: Any,
    layers: Sequence[str],
) -> Iterator[TrajectoryStep]:
    """Shows another denoiser (a permuted copy, say) the noisy latents of a trajectory, on the conditional prompt only.

    The forward ends after the last wanted layer.

    Args:
        denoiser: takes the place of the backbone's; the text encoder is the backbone's.
        noisy: `TrajectoryStep.noisy` of some steps, [len(indices), batch, channels, h, w].
        indices: the step each row of `noisy` comes from.
        scheduler: of the trajectory, at its start: `fresh_scheduler(backbone, steps)`.
        layers: full names of the wanted layers.

    Yields:
        `TrajectoryStep` as `generate` does, but no step is taken: `latents` are `noisy`, and `images` None.

    Raises:
        UserError: unknown layer, no layer, or `noisy`, `indices`, `scheduler` and `prompts` do not fit together.
    """
    if noisy.shape[:2] != (len(indices), len(prompts)):
        raise UserError(
            f"noisy latents of shape {list(noisy.shape)} for {len(indices)} steps of {len(prompts)} prompts; "
            "they must be [steps, prompts, channels, height, width]"
        )
    timesteps = scheduler.timesteps
    if any(not 0 <= index < len(timesteps) for index in indices):
        raise UserError(f"steps {list(indices)} of a trajectory of {len(timesteps)} steps")
    capture(denoiser, layers, stop=True)
    return _evaluate(backbone, denoiser, list(prompts), noisy, indices, scheduler, list(layers))


def _evaluate(
    backbone: Backbone,
    denoiser: nn.Module,
    prompts: list[str],
    noisy: Tensor,
    indices: Sequence[int],
    scheduler: Any,
    layers: list[str],
) -> Iterator[TrajectoryStep]:
    with torch.no_grad():
        conditions = encode_prompts(backbone, prompts, guided=False)

    @torch.no_grad()
    def compute_activations(index: int, latents: Tensor) -> TrajectoryStep:
        timestep = scheduler.timesteps[index]
        begun = copy.deepcopy(scheduler)  # LMS and Euler count their steps
        begin_at(begun, index)
        inputs = _scaled(begun, latents.to(backbone.device, backbone.dtype), timestep)
        with capture(denoiser, layers, guided=False, stop=True) as taken:
            evaluate(denoiser, inputs, timestep, conditions)
        values = layer_values(taken.activations)
        check_finite(backbone, values, images=len(latents), network=denoiser, when=at_step(index, timestep))
        return TrajectoryStep(index, float(timestep), latents, latents, taken.activations, None)

    for latents, index in zip(noisy, indices, strict=True):
        yield compute_activations(index, latents)


def fresh_scheduler(backbone: Backbone, steps: int) -> Any:
    """A copy of the backbone's scheduler at the start of a trajectory: schedulers keep state between steps.

    Raises:
        UserError: an impossible number of steps, or a sampler that evaluates the denoiser more often than that.
    """
    own: Any = backbone.pipeline.scheduler
    if not 1 <= steps <= own.config.num_train_timesteps:
        raise UserError(f"{steps} sampling steps; use 1 to {own.config.num_train_timesteps}")
    scheduler = type(own).from_config(own.config)
    try:
        backbone.family.set_timesteps(scheduler, steps, backbone)
    except (ValueError, TypeError) as error:  # settings that do not go together, or more steps than there are
        raise UserError(f"{type(own).__name__} cannot take {steps} steps: {one_line(error)}") from error
    if len(scheduler.timesteps) != steps:
        raise UserError(
            f"{type(own).__name__} evaluates the denoiser {len(scheduler.timesteps)} times in {steps} steps; "
            "use a scheduler of one evaluation a step, such as model.scheduler=ddim"
        )
    _check_sampler(scheduler)
    return scheduler


def _check_sampler(scheduler: Any) -> None:
    """Raises UserError for what would give no image, or one that the seed does not determine."""
    name = type(scheduler).__name__
    if scheduler.config.get("stochastic_sampling"):  # drawn from the global generator
        raise UserError(
            f"{name} with stochastic_sampling draws noise that no seed determines; set it to false in the pipeline's "
            "scheduler_config.json"
        )
    if scheduler.config.get("prediction_type") != "epsilon" or not hasattr(scheduler, "alphas_cumprod"):
        return
    first = int(scheduler.timesteps[0])
    if scheduler.alphas_cumprod[min(first, len(scheduler.alphas_cumprod) - 1)] == 0:
        raise UserError(
            f"{name} begins at pure noise (rescale_betas_zero_snr), where a denoiser that predicts the noise says "
            "nothing of the image; set prediction_type to v_prediction or rescale_betas_zero_snr to false in the "
            "pipeline's scheduler_config.json, whichever the model was trained with"
        )


def _scaled(scheduler: Any, latents: Tensor, timestep: Any) -> Tensor:
    """The denoiser's input; flow matching scales nothing."""
    return scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Standard normal noise [len(seeds), *shape] in float32, each image from its own generator on the CPU."""
    return _noise([torch.Generator("cpu").manual_seed(seed) for seed in seeds], shape)


def _noise(generators: Sequence[torch.Generator], shape: tuple[int, int, int]) -> Tensor:
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])

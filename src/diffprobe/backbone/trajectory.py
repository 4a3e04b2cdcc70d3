"""Sampling trajectories: from prompts and seeds to latents, activations and images after every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.capture import HALVES, capture, decode_latents, encode_prompts
from diffprobe.backbone.families import Conditions, family_of
from diffprobe.backbone.finite import at_step, check_finite, layer_values, naming_images
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.samplers import begin_at, take_step
from diffprobe.errors import UserError, one_line

Replacements = Mapping[int, Mapping[str, Callable[[Tensor], Tensor]]]
"""Step -> layer -> function of its output, as `replace` of `capture`."""

UNCHANGED: Replacements = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class TrajectoryStep:
    """One step of a batch of trajectories.

    Attributes:
        index: of the step, from 0.
        noisy: latents before the step and before the scheduler's input scaling, [batch, channels, h, w].
        latents: the same after the step.
        activations: [batch, channels, height, width] by layer; for both halves twice the batch, unconditional first.
        images: `latents` decoded, [batch, 3, H, W] in [0, 1], or None.
    """

    index: int
    timestep: float
    noisy: Tensor
    latents: Tensor
    activations: dict[str, Tensor]
    images: Tensor | None


@dataclass(frozen=True, eq=False)
class SamplingState:
    """Where a batch of trajectories stands between two steps: beside the model, all that the steps to come depend on.

    Attributes:
        scheduler: with what it keeps of the steps that were taken.
        latents: before the next step, [batch, channels, h, w].
        generators: one an image, of the noise that some samplers add on the way.
    """

    scheduler: Any
    latents: Tensor
    generators: Sequence[torch.Generator]

    @classmethod
    def at_start(cls, backbone: Backbone, seeds: Sequence[int], steps: int) -> SamplingState:
        """Noise from a CPU generator per image. Raises UserError as `fresh_scheduler`."""
        scheduler = fresh_scheduler(backbone, steps)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        latents = normal_noise(generators, backbone.latent_shape) * getattr(scheduler, "init_noise_sigma", 1.0)
        return cls(scheduler, latents.to(backbone.device, backbone.dtype), generators)

    def after(self, step: TrajectoryStep) -> SamplingState:
        """A state of its own right after a step of `sample_steps` that was given the parts of this one."""
        generators = [generator.clone_state() for generator in self.generators]
        return SamplingState(copy.deepcopy(self.scheduler), step.latents, generators)


def evaluate(denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
    """The denoiser's prediction for latents [batch, channels, h, w] after input scaling, in the same shape.

    Args:
        timestep: a number or tensor, one for all rows or [batch].
        conditions: from `encode_prompts`, with as many rows as the latents.
    """
    return family_of(denoiser).evaluate(denoiser, latents, timestep, conditions)


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
    classifier-free guidance with the empty prompt. An image is a function of (model, prompt, seed, sampler, steps),
    whatever the batch and device, and the same as that of the model's own pipeline.

    Args:
        steps: number of sampling steps; one evaluation of the denoiser each, on the guidance batch.
        layers: full names of the layers whose activations to take.
        half: 'conditional', 'unconditional' or 'both'. Without guidance there is the conditional one only.
        decode: also decode the latents after every step.
        replace: see `Replacements`; denoising goes on from the replaced outputs.

    Raises:
        UserError: no prompts, not one seed per prompt, or an impossible number of steps, layer or half.
    """
    if not prompts or len(prompts) != len(seeds):
        raise UserError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt, at least one")
    guided = backbone.guided
    check_half(backbone, half, guided)
    replaced = {name: function for by_layer in replace.values() for name, function in by_layer.items()}
    capture(backbone.denoiser, layers, replace=replaced)  # unknown layers are an error now, not at the first step
    state = SamplingState.at_start(backbone, seeds, steps)
    if any(not 0 <= step < steps for step in replace):
        raise UserError(f"activations to be replaced at steps {sorted(replace)} of {steps}, counted from 0")
    return sample_steps(
        backbone,
        state.scheduler,
        state.latents,
        prompts,
        layers,
        range(steps),
        state.generators,
        half=half,
        guided=guided,
        decode=decode,
        replace=replace,
    )


def check_half(backbone: Backbone, half: str, guided: bool) -> None:
    """Raises UserError for a half that a batch, guided or not, does not have."""
    if half not in HALVES or (half == "unconditional" and not guided):
        why = f"at guidance {backbone.guidance}" if backbone.family.guided(2) else "of a model without guidance batch"
        raise UserError(f"no half {half!r} {why}; use one of {', '.join(HALVES)}")


def sample_steps(
    backbone: Backbone,
    scheduler: Any,
    latents: Tensor,
    prompts: Sequence[str],
    layers: Sequence[str],
    indices: range,
    generators: Sequence[torch.Generator] = (),
    *,
    half: str = "conditional",
    guided: bool = False,
    decode: bool = False,
    replace: Replacements = UNCHANGED,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[TrajectoryStep]:
    """Takes the steps `indices` from latents [batch, channels, h, w] on.

    Samplers that add noise on the way draw each image's from its generator.

    Args:
        scheduler: at its start, or right before `indices` in mid-run, as of `SamplingState.after`.
        within: makes a context that one evaluation of the denoiser is in.

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
        with capture(backbone.denoiser, layers, half=half, guided=guided, replace=edits) as taken, within():
            predicted = evaluate(backbone.denoiser, inputs, timestep, conditions)
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + backbone.guidance * (conditional - unconditional)
        after = take_step(scheduler, predicted, timestep, noisy, generators, backbone.family.eta)
        when = at_step(index, float(timestep))
        values = {**layer_values(taken.activations), "the latents": after}
        check_finite(backbone, values, images=len(after), network=backbone.denoiser, when=when, edited=bool(replace))
        with naming_images((), when):
            images = decode_latents(backbone, after) if decode else None
        return TrajectoryStep(index, float(timestep), noisy, after, taken.activations, images)

    for index in indices:
        step = take(index, latents)
        latents = step.latents
        yield step
        del step  # memory holds one step


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
    """Evaluates another denoiser on the noisy latents of a trajectory, without guidance, up to the last wanted layer.

    Args:
        denoiser: in place of the backbone's, such as one with permuted weights.
        noisy: `TrajectoryStep.noisy` of the steps `indices`, [len(indices), batch, channels, h, w].
        scheduler: of the trajectory, at its start: `fresh_scheduler(backbone, steps)`.

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
    count = len(scheduler.timesteps)
    if any(not 0 <= index < count for index in indices):
        raise UserError(f"steps {list(indices)} of a trajectory of {count} steps")
    capture(denoiser, layers, stop=True)  # unknown layers are an error now

    @torch.no_grad()
    def evaluated(group: Sequence[int], latents: Tensor) -> list[dict[str, Tensor]]:
        """The activations of each step of a group, from their latents [steps, batch, channels, h, w]."""
        inputs = []
        for index, own in zip(group, latents, strict=True):
            begun = copy.deepcopy(scheduler)  # LMS and Euler count their steps
            begin_at(begun, index)
            inputs.append(_scaled(begun, own.to(backbone.device, backbone.dtype), scheduler.timesteps[index]))
        conditions = encode_prompts(backbone, [*prompts] * len(group), guided=False)
        with capture(denoiser, layers, guided=False, stop=True) as taken:
            timesteps = scheduler.timesteps[list(group)].repeat_interleave(len(prompts))
            evaluate(denoiser, torch.cat(inputs), timesteps, conditions)
        parts = {name: values.chunk(len(group)) for name, values in taken.activations.items()}
        return [{name: values[place] for name, values in parts.items()} for place in range(len(group))]

    def replayed() -> Iterator[TrajectoryStep]:
        at_once = 2 if backbone.guided else 1  # steps, as many rows as a guidance batch: small batches are slower
        for start in range(0, len(indices), at_once):
            group = indices[start : start + at_once]
            found = evaluated(group, noisy[start : start + at_once])
            for index, latents, activations in zip(group, noisy[start : start + at_once], found, strict=True):
                timestep = float(scheduler.timesteps[index])
                when = at_step(index, timestep)
                check_finite(backbone, layer_values(activations), images=len(prompts), network=denoiser, when=when)
                yield TrajectoryStep(index, timestep, latents, latents, activations, None)

    return replayed()


@torch.no_grad()
def partial_activations(
    backbone: Backbone,
    denoiser: nn.Module,
    inputs: Tensor,
    timestep: Any,
    conditions: Conditions,
    layers: Sequence[str],
    when: str,
) -> dict[str, Tensor]:
    """Activations of one evaluation without guidance that ends after the last wanted layer; see `capture`.

    Raises:
        NotFinite: they hold NaN or infinity.
    """
    with capture(denoiser, layers, guided=False, stop=True) as taken:
        evaluate(denoiser, inputs, timestep, conditions)
    check_finite(backbone, layer_values(taken.activations), images=len(inputs), network=denoiser, when=when)
    return taken.activations


def fresh_scheduler(backbone: Backbone, steps: int) -> Any:
    """A copy of the backbone's scheduler at the start of a trajectory: schedulers keep state between steps.

    Raises:
        UserError: an impossible number of steps, or a sampler that evaluates the denoiser more often than once a step,
            gives no image, or draws noise that no seed determines.
    """
    own: Any = backbone.pipeline.scheduler
    name = type(own).__name__
    if not 1 <= steps <= own.config.num_train_timesteps:
        raise UserError(f"{steps} sampling steps; use 1 to {own.config.num_train_timesteps}")
    scheduler = type(own).from_config(own.config)
    try:
        backbone.family.set_timesteps(scheduler, steps, backbone)
    except (ValueError, TypeError) as error:  # settings that do not go together, or more steps than there are
        raise UserError(f"{name} cannot take {steps} steps: {one_line(error)}") from error
    if len(scheduler.timesteps) != steps:
        raise UserError(
            f"{name} evaluates the denoiser {len(scheduler.timesteps)} times in {steps} steps; "
            "use a scheduler of one evaluation a step, such as model.scheduler=ddim"
        )
    if scheduler.config.get("stochastic_sampling"):  # from the global generator
        raise UserError(
            f"{name} with stochastic_sampling draws noise that no seed determines; set it to false in the pipeline's "
            "scheduler_config.json"
        )
    if scheduler.config.get("prediction_type") == "epsilon" and hasattr(scheduler, "alphas_cumprod"):
        first = min(int(scheduler.timesteps[0]), len(scheduler.alphas_cumprod) - 1)
        if scheduler.alphas_cumprod[first] == 0:
            raise UserError(
                f"{name} begins at pure noise (rescale_betas_zero_snr), where a denoiser that predicts the noise says "
                "nothing of the image; set prediction_type to v_prediction or rescale_betas_zero_snr to false in the "
                "pipeline's scheduler_config.json, whichever the model was trained with"
            )
    return scheduler


def normal_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise [len(generators), *shape] in float32 on the CPU, each row from its generator."""
    return torch.cat([torch.randn((1, *shape), generator=generator) for generator in generators])


def _scaled(scheduler: Any, latents: Tensor, timestep: Any) -> Tensor:
    """The denoiser's input; flow matching scales nothing."""
    return scheduler.scale_model_input(latents, timestep) if hasattr(scheduler, "scale_model_input") else latents

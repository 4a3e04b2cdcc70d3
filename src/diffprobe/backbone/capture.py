"""A pipeline's parts used one by one: text and images encoded, latents decoded and noised, activations captured.

What a family of pipelines does in its own way is in `families/`. Latents are [batch, channels, h, w] outside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffprobe.backbone.families import Conditions
from diffprobe.backbone.finite import check_finite
from diffprobe.backbone.layers import SpatialSizes, enclosing, unknown_layer
from diffprobe.backbone.load import Backbone, is_compiled
from diffprobe.backbone.model_folder import quiet
from diffprobe.errors import UserError

HALVES = ("conditional", "unconditional", "both")


def encode_prompts(backbone: Backbone, prompts: Sequence[str], *, guided: bool) -> Conditions:
    """The denoiser's inputs beside latents and timestep, by name, each with one row an image.

    If guided (at most `backbone.guided`), as many rows of empty prompts come first. Empty for a model without text.
    """
    with quiet():  # pipelines warn of a long text in every batch; `text_warnings` says it once
        return backbone.family.conditions(backbone, prompts, guided)


def encode_images(backbone: Backbone, images: Tensor) -> Tensor:
    """Images [batch, 3, H, W] in [0, 1] to latents [batch, channels, h, w]: the mean of the VAE's posterior, scaled.

    For a model in pixel space the latents are the images in [-1, 1].

    Raises NotFinite if the VAE gives NaN or infinity.
    """
    images = images.to(backbone.device, backbone.dtype) * 2 - 1
    latents = backbone.family.encode(backbone.vae, images).to(backbone.dtype)
    check_finite(backbone, {"the encoded image": latents}, images=len(images), network=backbone.vae)
    return latents


def decode_latents(backbone: Backbone, latents: Tensor) -> Tensor:
    """Latents [batch, channels, h, w] to images [batch, 3, H, W], float32 in [0, 1].

    Raises NotFinite if the VAE gives NaN or infinity.
    """
    images = backbone.family.decode(backbone.vae, latents)
    check_finite(backbone, {"the decoded image": images}, images=len(latents), network=backbone.vae)
    return (images.float() / 2 + 0.5).clamp(0, 1)


def add_noise(backbone: Backbone, clean: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
    """Clean latents [batch, channels, h, w] with noise, as a trajectory has them at a timestep.

    Some schedulers (LMS, Euler) keep latents as clean + sigma * noise and scale them only for the denoiser. With
    `scale_input`, all of them give sqrt(alpha) * clean + sqrt(1 - alpha) * noise; flow matching the straight mixture.

    Args:
        timesteps: a number or tensor, one for all rows or [batch]: in [0, 1000), fractions too; in [0, 1000] for flow
            matching, where 0 is no noise.
    """
    if backbone.family.flow_matching:
        share = _per_row(timesteps, clean) / backbone.pipeline.scheduler.config.num_train_timesteps
        mixed = (1 - share) * clean.float() + share * noise.float()
    else:
        sigma = _sigma(backbone, timesteps, clean)
        mixed = clean.float() + sigma * noise.float()
        if not _latents_carry_sigma(backbone.pipeline.scheduler):
            mixed = mixed / (1 + sigma**2).sqrt()
    return mixed.to(clean.dtype)


def scale_input(backbone: Backbone, noisy: Tensor, timesteps: Any) -> Tensor:
    """The denoiser's input for the noisy latents of `add_noise`: the scheduler's scaling, at any timesteps."""
    if not _latents_carry_sigma(backbone.pipeline.scheduler):
        return noisy
    return (noisy.float() / (1 + _sigma(backbone, timesteps, noisy) ** 2).sqrt()).to(noisy.dtype)


def _latents_carry_sigma(scheduler: Any) -> bool:
    """Whether a scheduler's latents are clean + sigma * noise: such schedulers record whether they have scaled."""
    return hasattr(scheduler, "is_scale_input_called")


def _sigma(backbone: Backbone, timesteps: Any, like: Tensor) -> Tensor:
    """The noise's standard deviation on clean latents of scale 1, linear between whole timesteps, [batch, 1, 1, 1]."""
    alphas = backbone.pipeline.scheduler.alphas_cumprod.to(like.device)
    table = ((1 - alphas) / alphas.clamp(min=2**-24)).sqrt()  # a schedule may end in pure noise
    rows = _per_row(timesteps, like).clamp(0, len(table) - 1)
    below = rows.floor().long()
    above = (below + 1).clamp(max=len(table) - 1)
    return torch.lerp(table[below], table[above], rows - below)


def _per_row(timesteps: Any, like: Tensor) -> Tensor:
    """A timestep for each row, [batch, 1, 1, 1]."""
    rows = torch.as_tensor(timesteps, dtype=torch.float32, device=like.device)
    return rows.expand(len(like)).view(-1, 1, 1, 1)


def find_layer(denoiser: nn.Module, name: str) -> nn.Module:
    """The module of that full name; far quicker than a dictionary of all. Raises UserError with the nearest names."""
    try:
        found = denoiser.get_submodule(name) if name else None
    except AttributeError:
        found = None
    if found is None:
        raise unknown_layer(name, (each for each, _ in denoiser.named_modules() if each))
    return found


class _Stop(Exception):
    """Ends a forward pass after the last wanted layer."""


class Capture:
    """Takes the named layers' outputs from every forward of `denoiser` inside the `with` block, by forward hooks.

        with capture(denoiser, names, stop=True) as taken:
            denoiser(noisy, timestep, encoder_hidden_states=text)
        taken.activations  # {name: [batch, channels, height, width]}

    Args:
        denoiser: must itself be called inside the block, not only its parts.
        layers: full module names.
        half: which half of a guidance batch (unconditional first, as in diffusers) to take; 'both' takes the batch.
        guided: whether the forwards carry a guidance batch; if not, the whole batch is taken.
        stop: end the block as soon as every named layer has run: later layers are not computed, and statements after
            the call inside the block do not run.
        replace: functions from a layer's whole output batch, [batch, channels, height, width], to what the network
            goes on with, of the same shape. A layer that is both replaced and taken gives the replacement. Skip
            connections of a block and the tokens of a text stay as they were.

    Attributes:
        activations: of the latest forward, in execution order, copied; each forward makes a new dictionary.

    Raises:
        UserError: a name that is no module (with the nearest names), a layer without spatial output or inside a
            compiled module, an odd guidance batch, or a replacement of another shape.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        layers: Sequence[str],
        *,
        half: str = "conditional",
        guided: bool = True,
        stop: bool = False,
        replace: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
    ) -> None:
        if half not in HALVES:
            raise UserError(f"no half {half!r} of a guidance batch; use one of {', '.join(HALVES)}")
        if stop and not layers:
            raise UserError("cannot stop after the last wanted layer: no layers are wanted")
        self._modules: dict[str, nn.Module] = {"": denoiser}  # the hooked modules and those around them
        for name in (*layers, *replace):
            self._modules[name] = find_layer(denoiser, name)
            for outer in enclosing(name):
                self._modules[outer] = denoiser.get_submodule(outer)
                if is_compiled(self._modules[outer]):
                    raise UserError(f"layer {name!r} is inside {outer!r}, which is compiled; use model.compile=false")
        self.activations: dict[str, Tensor] = {}
        self._wanted, self._waiting = frozenset(layers), set(layers)
        self._half, self._guided, self._stop, self._replace = half, guided, stop, replace
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Capture:
        hooked = sorted(self._wanted.union(self._replace))
        self._sizes = SpatialSizes(self._modules, {outer for name in hooked for outer in enclosing(name)})
        self._handles = [*self._sizes.handles, self._modules[""].register_forward_pre_hook(self._on_forward)]
        for name in hooked:
            self._handles.append(self._modules[name].register_forward_hook(partial(self._on_output, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        for handle in self._handles:
            handle.remove()
        return isinstance(error, _Stop) and error.args == (self,)  # not the stop of a capture around this one

    def _on_forward(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.activations, self._waiting = {}, set(self._wanted)

    def _on_output(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        location = self._sizes.image_location(name, output)
        if location is None:
            raise UserError(f"layer {name!r} has no spatial output; `python -m diffprobe.backbone MODEL` lists those")
        image = location.read(output)
        if name in self._replace:
            new = self._replace[name](image)
            if new.shape != image.shape:
                raise UserError(f"replacement of {name!r} has shape {list(new.shape)}, not {list(image.shape)}")
            image = new.to(image)
            output = location.write(output, image)
        if name in self._wanted:
            if self._guided and self._half != "both":
                if len(image) % 2:
                    raise UserError(f"layer {name!r} saw {len(image)} images, an odd number: not a guidance batch")
                unconditional, conditional = image.chunk(2)
                image = conditional if self._half == "conditional" else unconditional
            self.activations[name] = image.detach().clone(memory_format=torch.contiguous_format)
            self._waiting.discard(name)
            if self._stop and not self._waiting:
                raise _Stop(self)
        return output


capture = Capture

"""Takes activations out of a forward pass, stops it early, or writes other activations in: plain forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffprobe.backbone.layers import SpatialSizes, enclosing, unknown_layer
from diffprobe.backbone.speed import inside_compiled
from diffprobe.errors import UserError

HALVES = ("conditional", "unconditional", "both")


class _Stop(Exception):
    """Leaves a forward pass whose remaining layers nobody wants."""


def capture(
    denoiser: nn.Module,
    layers: Sequence[str],
    *,
    half: str = "conditional",
    guided: bool = True,
    stop: bool = False,
    replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Capture:
    """Takes the named layers' outputs from every forward of `denoiser` inside the `with` block.

        with capture(denoiser, names, stop=True) as taken:
            denoiser(noisy, timestep, encoder_hidden_states=text)
        taken.activations  # {name: [batch, channels, height, width]}

    Args:
        denoiser: the network; it must itself be called inside the block, not only its parts.
        layers: full module names.
        half: which half of a guidance batch (unconditional first, as in diffusers) to keep; 'both' keeps the batch.
        guided: whether the forwards carry a guidance batch; if not, the whole batch is kept.
        stop: end the block as soon as every named layer has run, whatever the order of the names: later layers are
            not computed, and nor are statements that follow the call inside the block.
        replace: functions from a layer's whole output batch, both halves, [batch, channels, height, width], to what
            shall go on through the network instead, of the same shape. A layer that is both replaced and taken gives
            the replacement. Skip connections of a block and the tokens of a text stay as they were.

    Raises:
        UserError: a name that is no module (with the nearest names), a layer without spatial output, an odd guidance
            batch, or a replacement of another shape.
    """
    return Capture(denoiser, layers, half=half, guided=guided, stop=stop, replace=replace or {})


class Capture:
    """See `capture`. `activations` holds the latest forward, in execution order, detached and copied; every forward
    starts a new dict, so one that was kept is not written over."""

    def __init__(
        self,
        denoiser: nn.Module,
        layers: Sequence[str],
        *,
        half: str,
        guided: bool,
        stop: bool,
        replace: Mapping[str, Callable[[Tensor], Tensor]],
    ) -> None:
        if half not in HALVES:
            raise UserError(f"no half {half!r} of a guidance batch; use one of {', '.join(HALVES)}")
        if stop and not layers:
            raise UserError("cannot stop after the last wanted layer: no layers are wanted")
        self._modules = dict(denoiser.named_modules())
        for name in (*layers, *replace):
            if not name or name not in self._modules:
                raise unknown_layer(name, filter(None, self._modules))
            outer = inside_compiled(self._modules, name)
            if outer:
                raise UserError(f"layer {name!r} is inside {outer!r}, which is compiled; use model.compile=false")
        self.activations: dict[str, Tensor] = {}
        self._wanted, self._waiting = frozenset(layers), set(layers)
        self._half, self._guided, self._stop, self._replace = half, guided, stop, replace
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Capture:
        hooked = sorted(self._wanted.union(self._replace))
        self._sizes = SpatialSizes(self._modules, {around for name in hooked for around in enclosing(name)})
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
        place = self._sizes.image_location(name, output)
        if place is None:
            raise UserError(f"layer {name!r} has no spatial output; `python -m diffprobe.backbone MODEL` lists those")
        image = place.read(output)
        if name in self._replace:
            image = _checked(name, image, self._replace[name](image))
            output = place.write(output, image)
        if name in self._wanted:
            part = self._select_half(name, image)
            self.activations[name] = part.detach().clone(memory_format=torch.contiguous_format)
            self._waiting.discard(name)
            if self._stop and not self._waiting:
                raise _Stop(self)
        return output

    def _select_half(self, name: str, image: Tensor) -> Tensor:
        if not self._guided or self._half == "both":
            return image
        if len(image) % 2:
            raise UserError(f"layer {name!r} saw {len(image)} images, an odd number: not a guidance batch")
        unconditional, conditional = image.chunk(2)
        return conditional if self._half == "conditional" else unconditional


def _checked(name: str, old: Tensor, new: Tensor) -> Tensor:
    if new.shape != old.shape:
        raise UserError(f"replacement of {name!r} has shape {list(new.shape)}, not {list(old.shape)}")
    return new.to(old)

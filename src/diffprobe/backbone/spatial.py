"""Activations as images: transformers hand on tokens, and only the module around them knows their height and width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class SpatialSizes:
    """The height and width that came into modules during the running forward, to tell the shape of their tokens.

    The square root of the number of tokens would be wrong for images that are not square.
    """

    def __init__(self, modules: Mapping[str, nn.Module], names: Iterable[str]) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}
        self.handles: list[RemovableHandle] = [
            modules[name].register_forward_pre_hook(partial(self._remember, name), with_kwargs=True) for name in names
        ]

    def _remember(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.ndim == 4:
                self._sizes[name] = (value.shape[-2], value.shape[-1])
                return

    def as_image(self, name: str, activation: Any) -> Tensor | None:
        """The output of module `name`, an image or tokens [batch, height * width, channels], as a view of shape
        [batch, channels, height, width]; None if it is neither (text tokens, a time embedding)."""
        if not isinstance(activation, Tensor) or activation.ndim not in (3, 4):
            return None
        if activation.ndim == 4:
            return activation
        size = next((self._sizes[around] for around in enclosing(name) if around in self._sizes), None)
        if size is None or size[0] * size[1] != activation.shape[1]:
            return None
        return activation.transpose(1, 2).unflatten(2, size)


def as_tokens(image: Tensor) -> Tensor:
    """[batch, channels, height, width] to tokens [batch, height * width, channels]."""
    return image.flatten(2).transpose(1, 2)


def first_tensor(output: Any) -> Any:
    """What a module computed: blocks of a U-Net return it together with skip connections, in a tuple."""
    return output[0] if isinstance(output, tuple) and output else output


def enclosing(name: str) -> list[str]:
    """The names of the modules around `name`, nearest first; the last is the network itself, the empty name."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1)]

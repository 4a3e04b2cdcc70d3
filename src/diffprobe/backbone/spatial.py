"""Where the image is in what a module returns: transformers hand on tokens, with or beside those of the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# Blocks for image and text side by side return both in a tuple, the text first.
_TWO_STREAMS = re.compile(r"(^|\.)(single_)?transformer_blocks\.\d+$")
# Inside FLUX's single blocks, image and text are one sequence, the text first.
_JOINED = re.compile(r"(^|\.)single_transformer_blocks\.\d+\.")
# Text alone, and norms of attention heads, which may happen to be as long as an image is.
_NO_IMAGE = re.compile(r"_context\b|\bcontext_|\bcaption_|\.(add_[qkv]_proj|to_add_out)\b|\.norm_(added_)?[qk]$")


@dataclass(frozen=True)
class Place:
    """Where in a module's output the image is.

    Attributes:
        index: position in a tuple; None if the output is a tensor.
        first: the image's first token, after those of the text.
        size: height and width of the tokens; None if the tensor is an image already.
    """

    index: int | None
    first: int
    size: tuple[int, int] | None

    def read(self, output: Any) -> Tensor:
        """The image as a view [batch, channels, height, width]."""
        tensor = output if self.index is None else output[self.index]
        return tensor if self.size is None else tensor[:, self.first :].transpose(1, 2).unflatten(2, self.size)

    def write(self, output: Any, image: Tensor) -> Any:
        """The output with another image in the place of its own."""
        tensor = image
        if self.size is not None:
            text = (output if self.index is None else output[self.index])[:, : self.first]
            tensor = torch.cat([text, image.flatten(2).transpose(1, 2)], dim=1)
        if self.index is None:
            return tensor
        return (*output[: self.index], tensor, *output[self.index + 1 :])


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
        size = _incoming_size(module, args, kwargs)
        if size is not None:
            self._sizes[name] = size

    def place(self, name: str, output: Any) -> Place | None:
        """Where the image is in the output of module `name`; None if there is none (text tokens, a time embedding)."""
        index = None
        if isinstance(output, tuple):
            index = int(len(output) > 1 and bool(_TWO_STREAMS.search(name)))
            output = output[index] if output else None
        if not isinstance(output, Tensor) or output.ndim not in (3, 4) or _NO_IMAGE.search(name):
            return None
        if output.ndim == 4:
            return Place(index, 0, None)
        size = next((self._sizes[around] for around in enclosing(name) if around in self._sizes), None)
        if size is None:
            return None
        text = output.shape[1] - size[0] * size[1]
        if text == 0 or (text > 0 and _JOINED.search(name)):
            return Place(index, text, size)
        return None


def _incoming_size(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the image that comes into a module; of its tokens, if it is a whole transformer."""
    if "img_ids" in kwargs:  # FLUX is given tokens, and where each is: the last one in the last row and column
        _, row, column = kwargs["img_ids"].reshape(-1, 3)[-1].tolist()
        return int(row) + 1, int(column) + 1
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.ndim == 4:
            patch = getattr(getattr(module, "config", None), "patch_size", None) or 1
            return value.shape[-2] // patch, value.shape[-1] // patch
    return None


def enclosing(name: str) -> list[str]:
    """The names of the modules around `name`, nearest first; the last is the network itself, the empty name."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, -1, -1)]

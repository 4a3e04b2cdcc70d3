"""What makes a denoiser faster without making it another network: autocast, memory format, compiled parts."""

from __future__ import annotations

import functools
import re
from types import MethodType
from typing import Any

import torch
from torch import nn

from diffprobe.errors import UserError

AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16}

# Compiled one by one, with hooks staying outside: in a whole network compiled at once, a hook that is added later is
# not seen, and one that changes between forwards has all of it compiled again.
_COMPILED = re.compile(r"\.resnets\.\d+$|\.ff$|\.ff_context$")
_MARK = "diffprobe_compiled"


def speed_up(denoiser: nn.Module, autocast: str | None, channels_last: bool, compiled: bool) -> None:
    """Changes how a denoiser computes, in place and by methods, so that copies compute with their own weights.

    Args:
        autocast: 'float16' or 'bfloat16' for matrix products and convolutions while the rest keeps the weights'
            precision; None for none.
        channels_last: memory format of convolution weights; faster on GPUs in half precision.
        compiled: residual blocks and feed-forwards through torch.compile. Layers inside these cannot be captured then.

    Raises:
        UserError: an unknown autocast precision.
    """
    if autocast is not None and autocast not in AUTOCAST:
        raise UserError(f"no autocast precision {autocast!r}; use null, {' or '.join(AUTOCAST)}")
    if channels_last:
        denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        for name, module in denoiser.named_modules():
            if _COMPILED.search(name):
                module.forward = MethodType(torch.compile(type(module).forward), module)
                setattr(module, _MARK, True)
    if autocast is not None:
        denoiser.forward = MethodType(_autocast(type(denoiser).forward, AUTOCAST[autocast]), denoiser)


def inside_compiled(modules: dict[str, nn.Module], name: str) -> str | None:
    """The compiled module around a layer, where hooks would not run; None if there is none."""
    parts = name.split(".")
    around = (".".join(parts[:length]) for length in range(1, len(parts)))
    return next((outer for outer in around if getattr(modules[outer], _MARK, False)), None)


def _autocast(forward: Any, dtype: torch.dtype) -> Any:
    @functools.wraps(forward)
    def cast(network: nn.Module, *arguments: Any, **named: Any) -> Any:
        with torch.autocast(next(network.parameters()).device.type, dtype):
            return forward(network, *arguments, **named)

    return cast

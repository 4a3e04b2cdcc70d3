"""Networks that give NaN or infinity for one image at one moment, for tests of what is said then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def spoilt(module: nn.Module, row: int, *, call: int = 0, value: float = math.nan) -> Iterator[None]:
    """Puts `value` into one number of what `module` gives in its row `row` at its call number `call`, from 0."""
    calls = iter(range(10**9))

    def spoil(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        if next(calls) == call:
            first = output if isinstance(output, Tensor) else output[0]
            first[row][(0,) * (first.ndim - 1)] = value

    handle = module.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()

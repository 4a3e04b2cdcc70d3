"""Sums and products in enough digits, whatever precision a run has allowed its network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def to_float64(values: Tensor) -> Tensor:
    """Float64, or float32 on Apple's GPUs, which have no float64."""
    return values.float() if values.device.type == "mps" else values.double()


@contextmanager
def float32_products() -> Iterator[None]:
    """Float32 products in float32: TF32 or bfloat16, which a run may have allowed its network, are not enough."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

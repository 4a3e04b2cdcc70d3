"""Precision of sums and products, whatever a run allows its network."""

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
    """Inside, float32 products are computed in float32, not in TF32 or bfloat16, which a run may allow its network."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

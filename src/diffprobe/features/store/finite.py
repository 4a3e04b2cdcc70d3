"""Refuses numbers that a stored tensor cannot hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.features.store.layout import TensorSpec

# Of each format the integers that its bits are read as, and the exponent that infinity and NaN have. Without the sign,
# bits order like magnitudes, so one maximum finds the worst; several times faster than isfinite on half precision.
_BITS = {
    "float16": (torch.int16, np.uint16, 0x7C00),
    "bfloat16": (torch.int16, np.uint16, 0x7F80),
    "float32": (torch.int32, np.uint32, 0x7F800000),
}


def check_finite(spec: TensorSpec, values: Tensor) -> None:
    """Raises UserError, naming layer and step, if any of the values (contiguous, on the CPU) is infinite or NaN."""
    if spec.dtype not in _BITS:
        return
    signed, unsigned, exponent = _BITS[spec.dtype]
    bits = values.reshape(len(values), -1).view(signed).numpy().view(unsigned)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    if all(int((row & ~sign).max(initial=0)) < exponent for row in bits):
        return
    layer, _, step = spec.name.rpartition("/step_")
    where = f"{layer} at step {step}" if layer else spec.name
    if spec.dtype == "float16":
        raise UserError(f"activations of {where} overflow float16; use features.dtype=bfloat16 or float32")
    raise UserError(f"activations of {where} are infinite or not numbers; run the model in higher precision")

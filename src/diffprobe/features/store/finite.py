"""Refuses numbers that a stored tensor cannot hold. `backbone.finite` has looked at them as the network gave them."""

from __future__ import annotations

from collections.abc import Sequence

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


def check_stored(spec: TensorSpec, values: Tensor, names: Sequence[str]) -> None:
    """Makes sure of values [images, ...] (contiguous, on the CPU, in the stored dtype) of the images called `names`.

    Raises:
        UserError: one is infinite or NaN, with image, layer, step and what to do.
    """
    if spec.dtype not in _BITS:
        return
    signed, unsigned, exponent = _BITS[spec.dtype]
    bits = values.reshape(len(values), -1).view(signed).numpy().view(unsigned)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    worst = [int((row & ~sign).max(initial=0)) for row in bits]
    image = next((place for place, each in enumerate(worst) if each >= exponent), None)
    if image is None:
        return
    tensor, _, step = spec.name.rpartition("/step_") if "/step_" in spec.name else (spec.name, "", "")
    extra = tensor.removeprefix("extra/")
    what = f"the activation of {tensor}" if extra == tensor else f"the {extra}"
    what += f" of image {names[image]!r}" + (f" at step {step}" if step else "")
    if worst[image] == exponent and spec.dtype != "float32":
        wider = "bfloat16 or float32" if spec.dtype == "float16" else "float32"
        largest = torch.finfo(spec.torch_dtype).max
        raise UserError(f"{what} overflows {spec.dtype}, which ends at {largest:.3g}; use features.dtype={wider}")
    raise UserError(f"{what} is infinite or not a number; run the model in higher precision (model.dtype=float32)")

"""Where everything lies in a shard: a safetensors file whose header is known before its contents.

Refuses numbers that a stored tensor cannot hold. `backbone.finite` has looked at them as the network gave them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffprobe.activations.store.manifest import CODES, FORMAT, Manifest
from diffprobe.errors import UserError


def tensor_name(layer: str, step: int) -> str:
    """What the activations of a layer at a step of the trajectory, counted from 0, are called in every shard."""
    return f"{layer}/step_{step}"


def extra_name(extra: str, step: int | None = None) -> str:
    """What an extra is called, at a step if it has one at every step."""
    return f"extra/{extra}" if step is None else tensor_name(f"extra/{extra}", step)


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of every shard, [images in the shard, *shape]; `before`: bytes of an image in earlier tensors."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    before: int

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one image in this tensor."""
        return prod(self.shape) * self.torch_dtype.itemsize

    def position(self, row: int, images: int) -> int:
        """Byte, within the data of a shard of so many images, at which a row begins."""
        return images * self.before + row * self.row_bytes


@dataclass(frozen=True)
class Shard:
    """A fixed run of consecutive images and the file that holds all their tensors."""

    path: Path
    rows: range


def tensor_specs(manifest: Manifest) -> dict[str, TensorSpec]:
    """The tensors of a shard by name, in file order: as they are computed, step by step.

    Wider numbers come first, as safetensors has it, so that each tensor is aligned to its own numbers.
    """
    rows: list[tuple[str, str, tuple[int, ...]]] = []
    for step in manifest.steps:
        for layer in manifest.layers:
            shape = (layer.channels, layer.height, layer.width)
            rows.append((tensor_name(layer.name, step), manifest.dtype, shape))
        rows += [(extra_name(item.name, step), item.dtype, item.shape) for item in manifest.extras if item.every_step]
    rows += [(extra_name(item.name), item.dtype, item.shape) for item in manifest.extras if not item.every_step]
    rows.sort(key=lambda row: -getattr(torch, row[1]).itemsize)  # stable: the order of computing is kept otherwise
    specs, before = {}, 0
    for name, dtype, shape in rows:
        specs[name] = TensorSpec(name, dtype, shape, before)
        before += specs[name].row_bytes
    return specs


def shards_of(manifest: Manifest, folder: Path) -> list[Shard]:
    """All shards of the store in `folder`, in row order, whether their files are there or not."""
    count, size = len(manifest.images), manifest.images_per_shard
    runs = [range(first, min(first + size, count)) for first in range(0, count, size)]
    return [Shard(folder / "shards" / f"images-{rows[0]:06d}-{rows[-1]:06d}.safetensors", rows) for rows in runs]


def header_fields(
    manifest: Manifest, specs: Mapping[str, TensorSpec], rows: range, checksums: Mapping[tuple[str, int], int]
) -> dict[str, Any]:
    """The header of a shard as JSON values. Checksums, by tensor and row of the shard, have a fixed width, so that the
    header of no checksums is as long as that of all."""
    images = len(rows)
    metadata = {
        "format": FORMAT,
        "fingerprint": manifest.fingerprint,
        "images": json.dumps([manifest.ids[row] for row in rows]),
    }
    for name in specs:
        metadata[f"crc32/{name}"] = "".join(f"{checksums.get((name, row), 0):08x}" for row in range(images))
    tensors = {
        name: {
            "dtype": CODES[spec.dtype],
            "shape": [images, *spec.shape],
            "data_offsets": [spec.position(0, images), spec.position(images, images)],
        }
        for name, spec in specs.items()
    }
    return {"__metadata__": metadata, **tensors}


def header_bytes(fields: Mapping[str, Any]) -> bytes:
    """The first bytes of the file: the header's length in 8 bytes, little-endian, and the header as JSON, padded with
    spaces so that the data begin at a multiple of 8."""
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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

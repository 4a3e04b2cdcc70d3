"""Where everything lies in a shard: a safetensors file whose header is known before its contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from diffprobe.features.store.manifest import CODES, FORMAT, Manifest


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

"""Shard files of a store, in safetensors format: their layout, writing them row by row, and checking them."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffprobe.activations.store.manifest import CODES, FORMAT, Manifest
from diffprobe.errors import UserError
from diffprobe.files import move_durably, temporary_beside


def tensor_name(layer: str, step: int) -> str:
    """The name of a layer's activations at a step, counted from 0, in every shard."""
    return f"{layer}/step_{step}"


def extra_name(extra: str, step: int | None = None) -> str:
    """The name of an extra, at a step if it has one at every step."""
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
        return math.prod(self.shape) * self.torch_dtype.itemsize

    def position(self, row: int, images: int) -> int:
        """Byte, within the data of a shard of so many images, at which a row begins."""
        return images * self.before + row * self.row_bytes


@dataclass(frozen=True)
class Shard:
    """A fixed run of consecutive images and the file that holds all their tensors."""

    path: Path
    rows: range


def tensor_specs(manifest: Manifest) -> dict[str, TensorSpec]:
    """The tensors of a shard by name, in file order: in the order of computing, but wider numbers first, so that each
    tensor is aligned."""
    rows: list[tuple[str, str, tuple[int, ...]]] = []
    for step in manifest.steps:
        for layer in manifest.layers:
            shape = (layer.channels, layer.height, layer.width)
            rows.append((tensor_name(layer.name, step), manifest.dtype, shape))
        rows += [(extra_name(item.name, step), item.dtype, item.shape) for item in manifest.extras if item.every_step]
    rows += [(extra_name(item.name), item.dtype, item.shape) for item in manifest.extras if not item.every_step]
    rows.sort(key=lambda row: -getattr(torch, row[1]).itemsize)  # stable
    specs, before = {}, 0
    for name, dtype, shape in rows:
        specs[name] = TensorSpec(name, dtype, shape, before)
        before += specs[name].row_bytes
    return specs


def shards_of(manifest: Manifest, folder: Path) -> list[Shard]:
    """All shards of the store in `folder`, in row order, finished or not."""
    count, size = len(manifest.images), manifest.images_per_shard
    runs = [range(first, min(first + size, count)) for first in range(0, count, size)]
    return [Shard(folder / "shards" / f"images-{rows[0]:06d}-{rows[-1]:06d}.safetensors", rows) for rows in runs]


def header_fields(
    manifest: Manifest, specs: Mapping[str, TensorSpec], rows: range, checksums: Mapping[tuple[str, int], int]
) -> dict[str, Any]:
    """The header of a shard as JSON values; its length does not depend on the checksums, by tensor and row."""
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
    """The start of a safetensors file: the header's length in 8 bytes, little-endian, and the header as JSON, padded
    with spaces to a multiple of 8."""
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_stored(spec: TensorSpec, values: Tensor, names: Sequence[str]) -> None:
    """Checks values [images, ...] in the stored dtype, of the images called `names`, before they are kept.

    Raises:
        UserError: one is infinite or NaN, with image, layer, step and what to do.
    """
    if not values.is_floating_point():
        return
    flat = values.reshape(len(values), -1)
    largest = torch.maximum(flat.amax(1), -flat.amin(1)).tolist()  # much faster than isfinite; NaN stays NaN
    row = next((row for row, value in enumerate(largest) if not math.isfinite(value)), None)
    if row is None:
        return
    tensor, _, step = spec.name.rpartition("/step_") if "/step_" in spec.name else (spec.name, "", "")
    extra = tensor.removeprefix("extra/")
    what = f"the activation of {tensor}" if extra == tensor else f"the {extra}"
    what += f" of image {names[row]!r}" + (f" at step {step}" if step else "")
    if math.isinf(largest[row]) and spec.dtype != "float32":
        wider = "bfloat16 or float32" if spec.dtype == "float16" else "float32"
        limit = torch.finfo(spec.torch_dtype).max
        raise UserError(f"{what} overflows {spec.dtype}, which ends at {limit:.3g}; use features.dtype={wider}")
    raise UserError(f"{what} is infinite or not a number; run the model in higher precision (model.dtype=float32)")


class DamagedShard(Exception):
    """A file that is not the shard its name says; the message says why."""


class ShardFile:
    """A shard that is being written, under a temporary name. Rows of tensors come in any order."""

    def __init__(self, manifest: Manifest, specs: Mapping[str, TensorSpec], shard: Shard) -> None:
        self.shard, self._manifest, self._specs = shard, manifest, specs
        self._checksums: dict[tuple[str, int], int] = {}
        header = header_bytes(header_fields(manifest, specs, shard.rows, {}))
        self._data = len(header)
        self._temporary = temporary_beside(shard.path)
        self._descriptor = os.open(self._temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        self._open = True

    @property
    def complete(self) -> bool:
        """Whether every row of every tensor has been written."""
        return len(self._checksums) == len(self._specs) * len(self.shard.rows)

    def write(self, name: str, first: int, values: Tensor) -> None:
        """Writes rows `first`, `first` + 1, ... of the shard; values [rows, *shape], contiguous, in the stored dtype.

        Raises:
            UserError: values that are not finite.
            OSError: the disk is full, or fails.
        """
        spec = self._specs[name]
        check_stored(spec, values, [self._manifest.ids[row] for row in self.shard.rows[first : first + len(values)]])
        rows = values.reshape(len(values), -1).view(torch.uint8).numpy()
        for place, row in enumerate(rows):
            self._checksums[name, first + place] = zlib.crc32(row.data)
        self._write(rows.data.cast("B"), self._data + spec.position(first, len(self.shard.rows)))

    def finish(self) -> None:
        """Writes the checksums into the header and gives the file its name, once it is safely on the disk.

        A damaged file of that name is kept beside it as `*.damaged`; a good one, of another process, stays.
        """
        try:
            fields = header_fields(self._manifest, self._specs, self.shard.rows, self._checksums)
            self._write(memoryview(header_bytes(fields)), 0)
            try:
                read_shard_header(self._manifest, self._specs, self.shard)
            except FileNotFoundError:
                move_durably(self._temporary, self.shard.path)
            except DamagedShard:
                set_aside(self.shard.path)
                move_durably(self._temporary, self.shard.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Closes the file, and removes it if it has not got its name. May be called again."""
        if self._open:
            self._open = False
            os.close(self._descriptor)
        self._temporary.unlink(missing_ok=True)

    def _write(self, data: memoryview, position: int) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, position)
            data, position = data[written:], position + written


def set_aside(path: Path) -> Path:
    """Renames a damaged file to `*.damaged`, numbered if there is one already. Nothing happens if it has gone."""
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.{number}.damaged"), number + 1
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(path, aside)
    return aside


@dataclass(frozen=True)
class ShardHeader:
    """Of a finished shard: the byte at which its data begin, and the CRC-32 of every row, [tensors, images]."""

    data: int
    checksums: np.ndarray


def read_shard_header(manifest: Manifest, specs: Mapping[str, TensorSpec], shard: Shard) -> ShardHeader:
    """Reads the header of a shard file and compares it with the manifest. Does not read the data.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedShard: it is no safetensors file, cut short, of another store, or of other images.
    """
    found, length = _read_header(shard.path)
    images = len(shard.rows)
    expected = header_fields(manifest, specs, shard.rows, {})
    metadata, wanted = found.pop("__metadata__", None), expected.pop("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("fingerprint") != wanted["fingerprint"]:
        raise DamagedShard("belongs to another store: its fingerprint differs")
    if metadata.get("images") != wanted["images"]:
        raise DamagedShard("holds other images than its name says")
    if found != expected or metadata.keys() != wanted.keys():
        raise DamagedShard("holds other tensors than the manifest says")
    size = length + images * sum(spec.row_bytes for spec in specs.values())
    if shard.path.stat().st_size != size:
        raise DamagedShard(f"has {shard.path.stat().st_size} bytes, not {size}")
    try:
        checksums = [bytes.fromhex(metadata[f"crc32/{name}"]) for name in specs]
        return ShardHeader(length, np.frombuffer(b"".join(checksums), dtype=">u4").reshape(len(specs), images))
    except (ValueError, TypeError) as error:
        raise DamagedShard(f"has unreadable checksums: {error}") from error


def _read_header(path: Path) -> tuple[dict, int]:
    """The header as JSON values, and the byte at which the data begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise DamagedShard("is no safetensors file, or cut short within its header")
        try:
            return dict(json.loads(file.read(length))), 8 + length
        except (ValueError, TypeError) as error:
            raise DamagedShard(f"has an unreadable header: {error}") from error


def broken_rows(specs: Mapping[str, TensorSpec], shard: Shard, header: ShardHeader) -> list[tuple[str, int]]:
    """Reads all data of a shard; the tensors and rows of the store whose checksums are not those in the header."""
    broken, images = [], len(shard.rows)
    with shard.path.open("rb") as file:
        for spec, expected in zip(specs.values(), header.checksums, strict=True):
            file.seek(header.data + spec.position(0, images))
            for row, checksum in zip(shard.rows, expected, strict=True):
                if zlib.crc32(file.read(spec.row_bytes)) != checksum:
                    broken.append((spec.name, row))
    return broken

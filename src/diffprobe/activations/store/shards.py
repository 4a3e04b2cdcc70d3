"""One shard file: written piece by piece under a temporary name, and examined before it is believed.

Where everything lies in a shard: a safetensors file whose header is known before its contents.

Refuses numbers that a stored tensor cannot hold. `backbone.finite` has looked at them as the network gave them.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffprobe.activations.store.manifest import CODES, FORMAT, Manifest
from diffprobe.errors import UserError
from diffprobe.files import move_durably, temporary_beside


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


class DamagedShard(Exception):
    """A file that is not the shard its name says; the message says why."""


class ShardFile:
    """A shard that is being written. Rows of tensors come in any order; nothing is held in memory."""

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
        """Puts the checksums into the header and gives the file its name, once it is safely on the disk.

        A damaged file of that name is kept beside it as `*.damaged`; a good one, which another process has finished
        in the meantime, stays. If that fails, the temporary file is removed.
        """
        try:
            fields = header_fields(self._manifest, self._specs, self.shard.rows, self._checksums)
            self._write(memoryview(header_bytes(fields)), 0)
            if not self._already_there():
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

    def _already_there(self) -> bool:
        try:
            read_shard_header(self._manifest, self._specs, self.shard)
        except FileNotFoundError:
            return False
        except DamagedShard:
            set_aside(self.shard.path)
            return False
        return True


def set_aside(path: Path) -> Path:
    """Renames a damaged file to `*.damaged`, numbered if there is one already. Nothing happens if it has gone."""
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.{number}.damaged"), number + 1
    with suppress(FileNotFoundError):  # another process has seen the same, and was faster
        os.rename(path, aside)
    return aside


@dataclass(frozen=True)
class ShardHeader:
    """Of a finished shard: the byte at which its data begin, and the CRC-32 of every row, [tensors, images]."""

    data: int
    checksums: np.ndarray


def read_shard_header(manifest: Manifest, specs: Mapping[str, TensorSpec], shard: Shard) -> ShardHeader:
    """Reads the header of a shard file and holds it against what the shard must be. Does not read the data.

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
        text = file.read(length)
    try:
        header = json.loads(text)
        return dict(header), 8 + length
    except (ValueError, TypeError) as error:
        raise DamagedShard(f"has an unreadable header: {error}") from error


def broken_rows(specs: Mapping[str, TensorSpec], shard: Shard, examined: ShardHeader) -> list[tuple[str, int]]:
    """Reads all data of a shard; the tensors and rows of the store whose checksum is not the one in the header."""
    broken, images = [], len(shard.rows)
    with shard.path.open("rb") as file:
        for spec, expected in zip(specs.values(), examined.checksums, strict=True):
            file.seek(examined.data + spec.position(0, images))
            for row, checksum in zip(shard.rows, expected, strict=True):
                if zlib.crc32(file.read(spec.row_bytes)) != checksum:
                    broken.append((spec.name, row))
    return broken

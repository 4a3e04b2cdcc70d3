"""One shard file: written piece by piece under a temporary name, and examined before it is believed."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffprobe.activations.store.layout import Shard, TensorSpec, check_stored, header_bytes, header_fields
from diffprobe.activations.store.manifest import Manifest
from diffprobe.writing import sync_folder, temporary_beside


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
            os.fsync(self._descriptor)
            if not self._already_there():
                os.replace(self._temporary, self.shard.path)
                sync_folder(self.shard.path.parent)
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

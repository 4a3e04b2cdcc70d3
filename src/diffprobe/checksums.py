"""Safetensors files that tell when they are damaged: what is kept to be read again carries checksums of all it says."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

PREFIX = "crc32/"


class Damaged(Exception):
    """A file that does not say what was once written to it; the message says why."""


def sealed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata to save with tensors: those given, and a CRC-32 of every tensor.

    It covers the tensor's name, type, shape and bytes, and the metadata, so that nothing in the file can change, and no
    tensor change its place, without its checksum.
    """
    return {**metadata, **{PREFIX + name: _checksum(name, value, metadata) for name, value in tensors.items()}}


def read_sealed(
    path: Path, names: Collection[str] | None = None, expected: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file that was saved with `sealed` metadata, and the metadata that it was sealed with.

    Args:
        names: of the tensors to read; None for all. Those that the file does not have are left out.
        expected: what the metadata must be.

    Raises:
        FileNotFoundError: there is no such file.
        Damaged: it is not what was written, or the metadata is not the expected.
    """
    from safetensors import safe_open

    if path.exists() and not path.is_file():
        raise Damaged("it is no file")
    try:
        with safe_open(path, framework="pt") as file:
            written: dict[str, str] = file.metadata() or {}
            there = set(file.keys())
            wanted = there if names is None else there & set(names)
            tensors = {name: file.get_tensor(name) for name in sorted(wanted)}
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors' own kind, and whatever a broken header makes of names and numbers
        raise Damaged(f"it cannot be read ({' '.join(str(error).split())[:100]})") from error
    metadata = {key: value for key, value in written.items() if not key.startswith(PREFIX)}
    checksums = {key.removeprefix(PREFIX): value for key, value in written.items() if key.startswith(PREFIX)}
    if checksums.keys() != there:
        raise Damaged("it has no checksum of what it holds")
    if expected is not None and metadata != dict(expected):
        raise Damaged("it is of something else than its name says")
    for name, value in tensors.items():
        if checksums[name] != _checksum(name, value, metadata):
            raise Damaged(f"the checksum of {name} is wrong")
    return tensors, metadata


def _checksum(name: str, value: Tensor, metadata: Mapping[str, str]) -> str:
    described = json.dumps([name, str(value.dtype), list(value.shape), sorted(metadata.items())]).encode()
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return str(zlib.crc32(flat.data, zlib.crc32(described)))

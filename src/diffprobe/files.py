"""Files that are there whole or not at all, tensors with checksums, and CSV tables."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """A hidden name in the folder of `path` that no other process or thread uses; it tells who does.

    suffix: of the name, for whoever chooses a format by it.
    """
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp{suffix}")


@contextmanager
def replacing(path: Path, move: Callable[[Path, Path], object] = os.replace) -> Iterator[Path]:
    """A temporary path beside `path`, moved to it when the block ends well and removed when it does not.

    The suffix is kept, since matplotlib and others choose the format by it.

    move: takes the temporary path and `path`; `move_durably` for what must survive a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path, path.suffix)
    try:
        yield temporary
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, all_machines: bool = False) -> None:
    """Removes the temporary files in a folder that processes of this machine left when they died; others stay.

    all_machines: whoever made them. Only for a folder that is known to be used by nobody else, since it is locked.
    """
    for path in folder.glob(".*.tmp*"):
        owner = re.search(r"\.([\w-]+)\.(\d+)\.[0-9a-f]+\.tmp(\.\w+)?$", path.name)
        if owner and (all_machines or (owner.group(1) == _host() and not _alive(int(owner.group(2))))):
            path.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 text in one move."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def move_durably(temporary: Path, path: Path, *, overwrite: bool = True) -> None:
    """Renames a written file so that it survives a power cut: its bytes reach the disk before the name, then the name.

    overwrite: whether a file that has the name already is replaced; else it stays, and the new one is removed.
    """
    _sync(temporary)
    if overwrite:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(temporary, path)
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


NO_STEP = -1  # the step of a row that belongs to no step (the position control); an empty cell in the file
Step = Annotated[int, "NO_STEP is an empty cell"]

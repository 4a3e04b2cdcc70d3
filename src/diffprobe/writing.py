"""Writing files that are there whole or not at all.

A temporary file lies beside its target; its name is unique to a process, and tells which process made it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def temporary_beside(path: Path, suffix: str = "") -> Path:
    """A hidden name in the folder of `path` that no other process or thread uses; it tells who does.

    suffix: of the name, for whoever chooses a format by it.
    """
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp{suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved to it when the block ends well and removed when it does not.

    The suffix is kept, since matplotlib and others choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path, path.suffix)
    try:
        yield temporary
        os.replace(temporary, path)
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


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder as durable as the files behind them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

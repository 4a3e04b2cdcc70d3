"""Temporary files beside their target: unique to a process, and told apart from those of processes that died."""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path


def temporary_beside(path: Path) -> Path:
    """A hidden name in the folder of `path` that no other process or thread uses; it tells who does."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that processes of this machine left when they died. Those of others stay."""
    for path in folder.glob(".*.tmp"):
        owner = re.search(rf"\.{re.escape(_host())}\.(\d+)\.[0-9a-f]+\.tmp$", path.name)
        if owner and not _alive(int(owner.group(1))):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder as durable as the files behind them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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

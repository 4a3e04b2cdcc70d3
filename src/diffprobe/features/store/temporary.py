"""Temporary files of a store, and names that last."""

from __future__ import annotations

import os
from pathlib import Path

from diffprobe.temporary import remove_leftovers, temporary_beside

__all__ = ["remove_leftovers", "sync_folder", "temporary_beside"]


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder as durable as the files behind them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

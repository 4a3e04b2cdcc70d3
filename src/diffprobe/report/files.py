"""Writing a file so that no reader ever meets half of it."""

from __future__ import annotations

from pathlib import Path

from diffprobe.temporary import replacing

__all__ = ["replacing", "write_text"]


def write_text(path: Path, text: str) -> Path:
    """Writes UTF-8 text in one move."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path

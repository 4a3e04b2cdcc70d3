"""Plain text in Markdown."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Text in which Markdown finds neither links nor tags nor ends of cells; `code` stays code."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(
        part.replace("|", r"\|") if number % 2 else re.sub(r"([\[\]|<*_])", r"\\\1", part)
        for number, part in enumerate(parts)
    )

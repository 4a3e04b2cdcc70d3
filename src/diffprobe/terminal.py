"""The console of this package's commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(least_width: int = 0, **options: Any) -> Console:
    """A console without markup and emoji codes, since paths and names may hold square brackets and colons.

    Args:
        least_width: columns, where the terminal has fewer.
        options: as of rich's console.
    """
    from rich.console import Console

    # In a notebook rich would show what is written to any file
    console = Console(markup=False, emoji=False, force_jupyter=False, **options)
    console.width = max(console.width, least_width)
    return console

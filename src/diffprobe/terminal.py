"""The console of this package's commands, and how they are typed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

BY_CONSOLE = "DIFFPROBE_CONSOLE"  # set by the console command; processes that it starts, jobs of SLURM too, inherit it


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


def script_command(script: str | None = None) -> list[str]:
    """What is typed to run a script: `python train.py`, or `diffprobe train` for who has typed `diffprobe`.

    Args:
        script: such as 'train'; by default the one that is running.
    """
    name = script or Path(sys.argv[0]).stem
    return ["diffprobe", name] if BY_CONSOLE in os.environ else ["python", f"{name}.py"]


def module_command(module: str) -> str:
    """What is typed to run a module: `python -m MODULE`, or the command of `diffprobe` that was typed for it."""
    return sys.argv[0] if sys.argv[0].startswith("diffprobe ") else f"python -m {module}"

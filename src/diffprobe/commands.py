"""What every `python -m diffprobe...` has around its work: threads are shared, and an end by a signal is told."""

from __future__ import annotations

import sys
from collections.abc import Callable

from diffprobe.signals import Stopped, listen, stoppable
from diffprobe.threads import share_threads


def run_command(main: Callable[[], int | None]) -> int:
    """Runs a main function in a process of its own; returns the exit code: of a signal, 128 + its number."""
    listen()
    share_threads()
    try:
        with stoppable():
            return main() or 0
    except Stopped as stopped:
        print(stopped.line, file=sys.stderr, flush=True)
        return 128 + stopped.number

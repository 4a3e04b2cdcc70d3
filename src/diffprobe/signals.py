"""SIGTERM and Ctrl-C: work stops, what is open is closed, and the command says so and exits with 128 + signal number.

A command calls `listen` first and works inside `stoppable`. There a signal raises `Stopped`, which unwinds like an
error; outside there is nothing to close, and the process ends at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from diffprobe.threads import share_threads

# SIGTERM: of kill, and of SLURM at a job's end; SIGUSR1 and SIGUSR2: of `sbatch --signal=USR1@120`; SIGHUP: the
# terminal has gone.
_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
STOPPING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_LOOK = 0.1  # seconds between repeated stops
_AGAIN = 0.5  # seconds after which another Ctrl-C is a person's second, not an echo of the first


class Stopped(SystemExit):
    """A signal has asked the process to end. Uncaught it exits with 128 + the signal's number.

    `hint` is a sentence about how to go on, set by code that it passes through.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(128 + number)
        self.number, self.hint = number, hint

    def __reduce__(self) -> tuple:
        return Stopped, (self.number, self.hint)

    @property
    def line(self) -> str:
        """The message to print."""
        return _word(self.number) + (f"; {self.hint}" if self.hint else "")


class _State:
    """State of the handler: whether `stoppable` is active, which signal came, and when."""

    inside = False
    received: int | None = None
    when = 0.0


def listen() -> None:
    """Installs the handlers. Signals that the caller's shell ignores stay ignored.

    SIGUSR2 is left to another program's handler: that of submitit, which has SLURM start the job again.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in STOPPING:
        there = signal.getsignal(number)
        if number == getattr(signal, "SIGUSR2", None) and there not in (signal.SIG_DFL, _stop):
            continue
        if there != signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, _stop)
    if signal.getsignal(signal.SIGALRM) == signal.SIG_DFL:
        signal.signal(signal.SIGALRM, _stop_again)  # now, so that code that restores handlers restores this one


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, a signal raises `Stopped`, and an error that comes of it becomes one. May be nested."""
    if _State.inside or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGALRM)}
    listening, unraisable = before[signal.SIGTERM] == _stop, sys.unraisablehook
    _State.received, _State.inside = None, True
    listen()
    sys.unraisablehook = _quiet_about_stops(unraisable)
    try:
        yield
        check()
    except Exception as error:
        if _State.received is None:
            raise
        raise Stopped(_State.received) from error  # such as that of a process whose partner has ended
    finally:
        _State.inside = False
        sys.unraisablehook = unraisable
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not listening:  # `listen` was not called before: a test, or another program
            for number, handler in before.items():
                signal.signal(number, handler)


def inside() -> bool:
    """Whether a signal would raise `Stopped` now."""
    return _State.inside


def check() -> None:
    """Raises `Stopped` if a signal came and other code has swallowed its exception."""
    if _State.inside and _State.received is not None:
        raise Stopped(_State.received)


def _stop(number: int, frame: FrameType | None) -> None:
    if _State.received is None:
        _State.received, _State.when = number, time.monotonic()
        if not _State.inside:
            os.write(2, f"{_word(number)}\n".encode())
            os._exit(128 + number)
        _remind()
        raise Stopped(number)
    if number == signal.SIGINT and time.monotonic() - _State.when > _AGAIN:  # a second Ctrl-C: no more waiting
        os._exit(128 + number)


def _remind() -> None:
    """Repeats the stop until the work has ended, since code that catches all exceptions may catch this one too."""
    if signal.getsignal(signal.SIGALRM) == _stop_again:
        signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)


def _stop_again(number: int, frame: FrameType | None) -> None:
    """Raises `Stopped` again, unless the first one is still being handled."""
    if not _State.inside or _State.received is None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return
    error = sys.exception()
    while error is not None and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    if error is None:
        raise Stopped(_State.received)


def _quiet_about_stops(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """`sys.unraisablehook` without a report of `Stopped`, which is raised again where Python drops it (`__del__`).

    Nor of the SystemExit of submitit's handler, which SIGTERM follows: SLURM ends what is to start again.
    """
    return lambda dropped: None if isinstance(dropped.exc_value, SystemExit) else hook(dropped)


def _word(number: int) -> str:
    return "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def run_command(main: Callable[[], int | None]) -> int:
    """Runs the main function of a `python -m diffprobe...`. Returns the exit code: of a signal, 128 + its number."""
    listen()
    share_threads()
    try:
        with stoppable():
            return main() or 0
    except Stopped as stopped:
        print(stopped.line, file=sys.stderr, flush=True)
        return 128 + stopped.number

"""One process at a time fills a store: the others wait for it, and then find the work done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


@contextmanager
def taking_turns(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Inside, no other process is inside for the same folder; `tell` takes a line when there is one to wait for.

    The operating system gives the turn back when a process ends in whatever way, so that nobody waits for the dead.
    Shards need no lock to be whole, so a file system without locks costs double work at worst.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            tell(f"waiting for another process that is filling {folder}")
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        tell(f"cannot lock {folder} ({error}): processes that fill it at the same time may do the same work twice")
    try:
        yield
    finally:
        lock.release()

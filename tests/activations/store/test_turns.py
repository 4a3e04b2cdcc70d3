"""One process at a time fills a store; a dead one is not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from diffprobe.activations.store.folder import store_lock
from tests.processes import FORK


def hold(folder: Path, seconds: float, inside: Callable[[], None]) -> None:
    with store_lock(folder, print):
        inside()
        time.sleep(seconds)


def holder(folder: Path, seconds: float) -> BaseProcess:
    inside = FORK.Event()
    process = FORK.Process(target=hold, args=(folder, seconds, inside.set))
    process.start()
    assert inside.wait(60)
    return process


def test_the_second_says_that_it_waits_and_comes_after_the_first(tmp_path):
    process, told = holder(tmp_path, 0.5), []
    with store_lock(tmp_path, told.append):
        process.join(60)
        assert process.exitcode == 0  # it has left
    assert told == [f"waiting for another process that is filling {tmp_path}"]


def test_a_killed_owner_gives_its_turn_back(tmp_path):
    process = holder(tmp_path, 60)
    process.kill()
    process.join()
    started = time.perf_counter()
    with store_lock(tmp_path, lambda line: None):
        assert time.perf_counter() - started < 5


def test_nobody_waits_for_oneself_twice_in_a_row(tmp_path):
    told = []
    for _ in range(2):
        with store_lock(tmp_path, told.append):
            pass
    assert told == []

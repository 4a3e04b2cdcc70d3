"""One process at a time fills a store; a dead one is not waited for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from diffprobe.activations.store.folder import store_lock

HOLD = """
import sys, time
from pathlib import Path
from diffprobe.activations.store.folder import store_lock
with store_lock(Path(sys.argv[1]), print):
    print("inside", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    return process


def test_the_second_says_that_it_waits_and_comes_after_the_first(tmp_path):
    process, told = holder(tmp_path, 1), []
    with store_lock(tmp_path, told.append):
        assert process.wait(timeout=60) == 0  # it has left
    assert told == [f"waiting for another process that is filling {tmp_path}"]


def test_a_killed_owner_gives_its_turn_back(tmp_path):
    process = holder(tmp_path, 60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    started = time.perf_counter()
    with store_lock(tmp_path, lambda line: None):
        assert time.perf_counter() - started < 5


def test_nobody_waits_for_oneself_twice_in_a_row(tmp_path):
    told = []
    for _ in range(2):
        with store_lock(tmp_path, told.append):
            pass
    assert told == []

"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.commands import ROOT

PAGES = 20_000  # of 4 KiB in four tensors of 20 MB

COUNT_FAULTS = """
import resource, sys
import torch
from diffprobe.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        [torch.ones(5_000_000) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] != "leave":
    assert keep_freed_memory() == (sys.argv[1] == "keep")
faults()
print(faults())
"""


def page_faults(choice: str, **variables: str) -> int:
    """Pages that the system maps while ten times four tensors of 20 MB are made and freed."""
    command, environment = [sys.executable, "-c", COUNT_FAULTS, choice], os.environ | variables
    ended = subprocess.run(command, cwd=ROOT / "src", env=environment, check=True, capture_output=True, text=True)
    return int(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is GNU's only on Linux")
def test_the_next_tensor_takes_the_memory_of_the_last():
    assert page_faults("keep") < PAGES
    assert page_faults("leave") > 5 * PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is GNU's only on Linux")
def test_settings_of_the_user_are_left_alone():
    assert page_faults("refused", MALLOC_MMAP_THRESHOLD_="1000000") > 5 * PAGES

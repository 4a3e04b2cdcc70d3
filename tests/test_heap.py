"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.commands import ROOT

PAGES = 4_096  # of 4 KiB in a tensor; a forward makes eight

COUNT_FAULTS = """
import resource, sys
import torch
from torch import nn
from diffprobe.heap import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] != "leave":
    assert keep_freed_memory() == (sys.argv[1] == "keep")
layers = [nn.Sequential(nn.GroupNorm(4, 64), nn.SiLU()) for _ in range(8)]
noise = torch.zeros(16, 64, 64, 64)  # 16 MB

def forward():
    outputs = [noise]  # all of them, as a U-Net keeps those of its way down for its way up
    for layer in layers:
        outputs.append(layer(outputs[-1]))

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        forward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

counted = [faults() for _ in range(5)]
print(sum(counted[1:]))
"""


def page_faults(choice: str, **variables: str) -> int:
    """Pages that the system maps during four forwards after the first one, of which some may need none by chance."""
    command, environment = [sys.executable, "-c", COUNT_FAULTS, choice], os.environ | variables
    ended = subprocess.run(command, cwd=ROOT / "src", env=environment, check=True, capture_output=True, text=True)
    return int(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is GNU's only on Linux")
def test_the_next_forward_takes_the_memory_of_the_last():
    assert page_faults("keep") < 2 * PAGES
    assert page_faults("leave") > 4 * PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is GNU's only on Linux")
def test_settings_of_the_user_are_left_alone():
    assert page_faults("refused", MALLOC_MMAP_THRESHOLD_="1000000") > 4 * PAGES

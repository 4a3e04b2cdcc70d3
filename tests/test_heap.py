"""Freed memory is kept for the next tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.commands import ROOT

PAGES = 20_000  # of 4 KiB, a fraction of what a forward makes

COUNT_FAULTS = """
import resource, sys
import torch
from diffprobe.backbone.load import load_backbone
from diffprobe.heap import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] != "leave":
    assert keep_freed_memory() == (sys.argv[1] == "keep")
network = load_backbone("pocket").denoiser
noise, words = torch.zeros(20, 4, 16, 16), torch.zeros(20, 8, network.config.cross_attention_dim)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.no_grad():
        network(noise, 500, words)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def page_faults(choice: str, **variables: str) -> int:
    """Pages that the system maps during the second forward of the built-in model for 20 images."""
    command, environment = [sys.executable, "-c", COUNT_FAULTS, choice], os.environ | variables
    ended = subprocess.run(command, cwd=ROOT / "src", env=environment, check=True, capture_output=True, text=True)
    return int(ended.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is GNU's only on Linux")
def test_the_next_forward_takes_the_memory_of_the_last():
    assert page_faults("keep") < PAGES / 5
    assert page_faults("leave") > PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is GNU's only on Linux")
def test_settings_of_the_user_are_left_alone():
    assert page_faults("refused", MALLOC_MMAP_THRESHOLD_="1000000") > PAGES

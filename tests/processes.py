"""Processes beside that of the tests: forks of it, and such as share work by gloo, as those of one machine do."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from socket import socket
from typing import Any

import torch
import torch.multiprocessing as mp

FORK = multiprocessing.get_context("fork")  # a new interpreter would spend seconds on imports
PROCESSES = 2
START = "spawn" if torch.cuda.is_available() else "fork"  # autograd does not outlive a fork where there are devices


def together(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What `work(*arguments)` gives to each of two processes, which hand it over in `folder`."""
    with socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.start_processes(_process, (work, folder, port, *arguments), nprocs=PROCESSES, start_method=START)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(PROCESSES)]


def _process(rank: int, work: Callable[..., Any], folder: Path, port: int, *arguments: Any) -> None:
    told = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": PROCESSES}
    told |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)  # and those of the parent are not in this process
    torch.save(work(*arguments), folder / f"{rank}.pt")
    # A process that ends while the other still talks to it can be aborted.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

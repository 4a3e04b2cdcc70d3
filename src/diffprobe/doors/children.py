"""The processes that a run has started: those of Lightning's devices, and of submitit's local launcher."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_OF_DEVICES = "hydra.job.name=train_ddp_process_"  # what Lightning adds to the command of a process it starts
CONTROLLER = "submitit.local._local"  # the module that runs a job of submitit's local launcher
_PATIENCE = 8.0  # seconds to close what is open


def is_helper() -> bool:
    """Whether Lightning has started this process, to help another one on this machine."""
    return any(argument.startswith(_OF_DEVICES) for argument in sys.argv)


def end_children(patience: float = _PATIENCE) -> None:
    """Asks the processes that this one has started for its work to end, and ends those that do not."""
    import psutil

    own = psutil.Process()
    wanted = [child for child in own.children(recursive=True) if _works_for_us(child)]
    for child in wanted:
        _try(child.terminate)
    if wanted:
        _leave_group()
    _, alive = psutil.wait_procs(wanted, timeout=patience)
    for child in alive:
        _try(child.kill)


def _leave_group() -> None:
    """Breaks the connections to the other processes of a run on CPUs: one that waits for this one hears no signal."""
    if "torch.distributed" not in sys.modules:
        return
    import torch.distributed as group

    if group.is_available() and group.is_initialized() and group.get_backend() == "gloo":
        group.destroy_process_group()


def _works_for_us(process: psutil.Process) -> bool:
    import psutil

    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return any(part.startswith(_OF_DEVICES) or part == CONTROLLER for part in command)


def _try(act: Callable[[], None]) -> None:
    import psutil

    try:
        act()
    except psutil.NoSuchProcess:
        return  # it has ended by itself

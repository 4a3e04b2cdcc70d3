"""The processes of a run: those that SLURM has started, those that share this machine's cores, and its children."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from diffprobe.errors import SharedError
from diffprobe.threads import usable_cores

_CONTROLLER = "submitit.local._local"  # the module that runs a job of submitit's local launcher
_OF_DEVICES = "hydra.job.name=train_ddp_process_"  # what Lightning adds to the command of a process it starts
_PATIENCE = 8.0  # seconds that a child has to close its files


def check_processes(trainer: Any, hydra: Any, environment: Mapping[str, str] = os.environ) -> None:
    """Raises SharedError where a run would not get the processes that its trainer asks for, or others beside them.

    A job of a sweep must not start processes of its own, which would each run the sweep. Under SLURM, `srun` starts one
    task for each device, and Lightning reads in the environment what it has started.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    several = devices * nodes > 1
    right = f"srun --nodes={nodes} --ntasks-per-node={devices}"
    tasks = _slurm_tasks(environment)
    if tasks is None:
        if several and hydra.mode.name == "MULTIRUN":
            raise SharedError(
                f"trainer.devices={devices} in a sweep: a job of a sweep has one process, unless SLURM "
                "starts several (docs/cluster.md); use trainer.devices=1"
            )
        if nodes > 1 and not {"NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID"} & environment.keys():
            raise SharedError(
                f"trainer.num_nodes={nodes}, but nobody has started this command on other machines: use "
                f"'{right}', or trainer.num_nodes=1"
            )
        return
    wanted = f"trainer.devices={devices} trainer.num_nodes={nodes}"
    per_node = environment.get("SLURM_NTASKS_PER_NODE")
    if tasks > 1 and not {"SLURM_STEP_ID", "SLURM_STEPID"} & environment.keys():
        raise SharedError(
            f"SLURM gives this job {tasks} tasks, and one process was started by hand: begin the command with "
            f"'{right}', or ask sbatch for one task"
        )
    if tasks > 1 and per_node is None:
        if several:
            raise SharedError(
                f"srun has started {tasks} tasks by --ntasks={tasks}, which does not say how many run on a machine: "
                f"use --ntasks-per-node, '{right}' for {wanted}"
            )
        raise SharedError(
            f"srun has started {tasks} tasks, and each would do the whole work: use --ntasks=1, or one task a "
            f"device with 'srun --ntasks-per-node={tasks} ... trainer=slurm trainer.devices={tasks}'"
        )
    there = int(environment.get("SLURM_NNODES", nodes))
    each = int(per_node or tasks)
    if (each, there, tasks) != (devices, nodes, devices * nodes) and (several or tasks > 1):
        raise SharedError(
            f"SLURM has started {tasks} task{'s' * (tasks > 1)} (--nodes={there} --ntasks-per-node={each}) for "
            f"{wanted}: they must agree. Use '{right}', or 'trainer=slurm trainer.devices={each} "
            f"trainer.num_nodes={there}'"
        )


def _slurm_tasks(environment: Mapping[str, str]) -> int | None:
    """The number of tasks of which SLURM started this process as one.

    None where a shell in between or torchrun started it (Lightning recognises shells by the same job names).
    """
    if "SLURM_NTASKS" not in environment or "TORCHELASTIC_RUN_ID" in environment:
        return None
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    return int(environment["SLURM_NTASKS"])


def processes_at_once(trainer: Any, hydra: Any) -> int:
    """How many processes of this run, or of its sweep, share the cores that this one may use.

    SLURM gives each of its tasks cores of its own, so they do not count.
    """
    jobs = 1
    if by_joblib(hydra):
        wanted = int(hydra.launcher.get("n_jobs", -1) or -1)  # below 0: so many fewer than all cores, -1 being all
        jobs = wanted if wanted > 0 else max(1, usable_cores() + 1 + wanted)
    elif hydra.mode.name == "MULTIRUN" and os.environ.get("SUBMITIT_EXECUTOR") == "local":
        jobs = _submitit_jobs()
    devices = trainer.devices if _slurm_tasks(os.environ) is None and "LOCAL_WORLD_SIZE" not in os.environ else 1
    return jobs * max(1, devices)


def by_joblib(hydra: Any) -> bool:
    """Whether joblib has started this job."""
    return hydra.mode.name == "MULTIRUN" and str(hydra.launcher.get("_target_", "")).endswith("JoblibLauncher")


def _submitit_jobs() -> int:
    """The jobs that submitit's local launcher has running: the controllers below the process of the sweep."""
    import psutil

    below_sweep = False
    for ancestor in psutil.Process().parents():
        command = _command(ancestor)
        # a shell's command holds that of the controller as a part of one argument
        if below_sweep and not any(_CONTROLLER in part for part in command):
            return max(1, sum(_CONTROLLER in _command(each) for each in ancestor.children(recursive=True)))
        below_sweep = below_sweep or _CONTROLLER in command
    return 1


def _command(process: Any) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_helper() -> bool:
    """Whether Lightning has started this process, to help another one on this machine."""
    return any(argument.startswith(_OF_DEVICES) for argument in sys.argv)


def end_children() -> None:
    """Terminates the processes that Lightning or submitit started for this one, and kills those that do not end."""
    import psutil

    children = [
        child
        for child in psutil.Process().children(recursive=True)
        if any(part.startswith(_OF_DEVICES) or part == _CONTROLLER for part in _command(child))
    ]
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    if children:
        _leave_group()
    _, alive = psutil.wait_procs(children, timeout=_PATIENCE)
    for child in alive:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _leave_group() -> None:
    """Breaks the connections to the other processes of a run on CPUs: one that waits for this one hears no signal."""
    if "torch.distributed" not in sys.modules:
        return
    import torch.distributed as group

    if group.is_available() and group.is_initialized() and group.get_backend() == "gloo":
        group.destroy_process_group()

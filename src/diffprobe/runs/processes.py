"""The processes of a run: whether those that SLURM has started are those that the trainer wants, and how many share
this machine's cores.

The processes that a run has started: those of Lightning's devices, and of submitit's local launcher.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from diffprobe.errors import UserError

if TYPE_CHECKING:
    import psutil


def check_processes(trainer: Any, hydra: Any, environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where a run would not get the processes that its trainer asks for, or others beside them.

    A job of a sweep must not start processes of its own, which would each run the sweep. Under SLURM, it is `srun` that
    starts one task for each device, and Lightning that reads in the environment what it has started.
    """
    tasks = _slurm_tasks(environment)
    if tasks is None:
        if trainer.devices * trainer.num_nodes > 1 and hydra.mode.name == "MULTIRUN":
            raise UserError(
                f"trainer.devices={trainer.devices} in a sweep: a job of a sweep has one process, unless SLURM "
                "starts several (docs/sweeps.md); use trainer.devices=1"
            )
        if trainer.num_nodes > 1 and not {"NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID"} & environment.keys():
            raise UserError(
                f"trainer.num_nodes={trainer.num_nodes}, but nobody has started this command on other machines: use "
                f"'srun --nodes={trainer.num_nodes} --ntasks-per-node={trainer.devices}', or trainer.num_nodes=1"
            )
        return
    wanted = f"trainer.devices={trainer.devices} trainer.num_nodes={trainer.num_nodes}"
    right = f"srun --nodes={trainer.num_nodes} --ntasks-per-node={trainer.devices}"
    several = trainer.devices * trainer.num_nodes > 1
    per_node = environment.get("SLURM_NTASKS_PER_NODE")
    if tasks > 1 and not _in_step(environment):
        raise UserError(
            f"SLURM gives this job {tasks} tasks, and one process was started by hand: begin the command with "
            f"'{right}', or ask sbatch for one task"
        )
    if tasks > 1 and per_node is None:
        if several:
            raise UserError(
                f"srun has started {tasks} tasks by --ntasks={tasks}, which does not say how many run on a machine: "
                f"use --ntasks-per-node, '{right}' for {wanted}"
            )
        raise UserError(
            f"srun has started {tasks} tasks, and each would do the whole work: use --ntasks=1, or one task a "
            f"device with '{_with(tasks)}'"
        )
    nodes = int(environment.get("SLURM_NNODES", trainer.num_nodes))
    each = int(per_node or tasks)
    fits = (each, nodes, tasks) == (trainer.devices, trainer.num_nodes, trainer.devices * trainer.num_nodes)
    if not fits and (several or tasks > 1):
        raise UserError(
            f"SLURM has started {tasks} task{'s' * (tasks > 1)} (--nodes={nodes} --ntasks-per-node={each}) for "
            f"{wanted}: they must agree. Use '{right}', or 'trainer=slurm trainer.devices={each} "
            f"trainer.num_nodes={nodes}'"
        )


def processes_at_once(trainer: Any, hydra: Any) -> int:
    """How many processes of this run, or of its sweep, share the cores that this one may use.

    SLURM's tasks are not among them: its share of the cores is that of a task.
    """
    jobs = 1
    if hydra.mode.name == "MULTIRUN":
        launcher = str(hydra.launcher.get("_target_", ""))
        if launcher.endswith("JoblibLauncher"):
            jobs = _of_joblib(int(hydra.launcher.get("n_jobs", -1) or -1))
        elif os.environ.get("SUBMITIT_EXECUTOR") == "local":
            jobs = _of_submitit()
    devices = trainer.devices if _slurm_tasks(os.environ) is None and "LOCAL_WORLD_SIZE" not in os.environ else 1
    return jobs * max(1, devices)


def by_joblib(hydra: Any) -> bool:
    """Whether the job is one that joblib has started."""
    return hydra.mode.name == "MULTIRUN" and str(hydra.launcher.get("_target_", "")).endswith("JoblibLauncher")


def _slurm_tasks(environment: Mapping[str, str]) -> int | None:
    """The tasks that SLURM has for this process to be one of; None where it has not started it, or a shell in between
    has (Lightning goes by the same names of jobs), or torchrun."""
    if "SLURM_NTASKS" not in environment or "TORCHELASTIC_RUN_ID" in environment:
        return None
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    return int(environment["SLURM_NTASKS"])


def _in_step(environment: Mapping[str, str]) -> bool:
    return "SLURM_STEP_ID" in environment or "SLURM_STEPID" in environment


def _with(tasks: int) -> str:
    return f"srun --ntasks-per-node={tasks} ... trainer=slurm trainer.devices={tasks}"


def _of_joblib(n_jobs: int) -> int:
    """How many jobs run at once: below 0, so many fewer than all cores, -1 being all."""
    from diffprobe.threads import usable_cores

    return n_jobs if n_jobs > 0 else max(1, usable_cores() + 1 + n_jobs)


def _of_submitit() -> int:
    """The jobs that submitit's local launcher has running: the controllers below the process of the sweep."""
    import psutil

    below_sweep = False
    for ancestor in psutil.Process().parents():
        command = _command(ancestor)
        if below_sweep and not any(CONTROLLER in part for part in command):  # a shell's command holds the controller's
            return max(1, sum(CONTROLLER in _command(each) for each in ancestor.children(recursive=True)))
        below_sweep = below_sweep or CONTROLLER in command
    return 1


def _command(process: Any) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


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

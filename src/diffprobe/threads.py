"""How many threads this process may use: its share of the cores.

PyTorch, OpenMP and numba use every core that they see. OpenMP's threads wait by spinning, so several processes that do
so on one machine become ten times slower or worse.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The number of threads that a process of this package has set, or 0 where it may set one. Processes inherit it, and so
# tell our number from one that the user has chosen.
CHOSEN = "DIFFPROBE_THREADS"
THREADS = "OMP_NUM_THREADS"


def note_choice() -> None:
    """Records whether the user has chosen a number of threads, before anything else may set one."""
    if CHOSEN not in os.environ and THREADS not in os.environ:
        os.environ[CHOSEN] = "0"


def share_threads(processes: int = 1, *, chosen_by_joblib: bool = False) -> int | None:
    """Limits the threads of this process to its share of the cores, unless the user has set `OMP_NUM_THREADS`.

    Args:
        processes: how many processes of this run share the cores that this one may use.
        chosen_by_joblib: an `OMP_NUM_THREADS` of a process that joblib has started is joblib's.

    Returns:
        The number of threads; None where the user has chosen it.
    """
    note_choice()
    ours, found = os.environ.get(CHOSEN), os.environ.get(THREADS)
    if ours is None or (found is not None and found != ours and not chosen_by_joblib):
        return None
    threads = str(max(1, usable_cores() // max(1, processes)))
    if os.environ.get("NUMBA_NUM_THREADS") in (None, ours) or chosen_by_joblib:
        os.environ["NUMBA_NUM_THREADS"] = threads  # numba counts cores by itself, and sets the threads of OpenMP too
    os.environ[CHOSEN] = os.environ[THREADS] = threads
    if "torch" in sys.modules:  # it has read the variable already
        sys.modules["torch"].set_num_threads(int(threads))
    return int(threads)


def usable_cores(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """The cores that this process may fill: by its affinity, the quota of its control group, and SLURM's share.

    SLURM's share of a task is `--cpus-per-task`; without it, the cores of the job on this machine divided by the tasks
    that run there. Started by torchrun, one of `LOCAL_WORLD_SIZE` processes divides that again.

    Args:
        root: of the file system, for tests.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min([affinity, *_quotas(root)])
    tasks = _slurm_tasks(environment)
    per_task = _number(environment.get("SLURM_CPUS_PER_TASK"))
    on_node = _number(environment.get("SLURM_CPUS_ON_NODE"))
    if per_task:
        cores = min(cores, per_task)
        if on_node is None:
            cores = min(cores, max(1, affinity // tasks))
    elif on_node:
        cores = min(cores, max(1, on_node // tasks))
    else:
        cores //= tasks
    return max(1, cores // (_number(environment.get("LOCAL_WORLD_SIZE")) or 1))


def decoding_threads() -> ThreadPoolExecutor:
    """A pool of threads to read and decode files; decoders release the interpreter's lock.

    torch remakes its own pool of threads in a process that was forked, when it is first asked for. Two threads that ask
    at once break it, so it is asked for here.
    """
    import torch

    torch.set_num_threads(torch.get_num_threads())
    return ThreadPoolExecutor(min(32, usable_cores() + 4))


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """How many tasks run on this machine, of the step that `srun` has started; without one, as many as the job asks."""
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE") or ""  # such as 4(x2),3: a number for each node of the step
    counts: list[int] = []
    for number, _, times in re.findall(r"(\d+)(\(x(\d+)\))?", tasks):
        counts += [int(number)] * int(times or 1)
    node = _number(environment.get("SLURM_NODEID"), least=0) or 0
    if node < len(counts):
        return max(1, counts[node])
    return _number(environment.get("SLURM_NTASKS_PER_NODE")) or 1


def _number(text: str | None, least: int = 1) -> int | None:
    """A whole number of at least `least`; None of anything else."""
    return int(text) if text is not None and text.strip().isdigit() and int(text) >= least else None


def _quotas(root: Path) -> list[int]:
    """The cores that control groups allow (version 2 and 1), rounded down: a part of a core is lost to spinning."""
    found: list[int] = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            found += _along(root / "sys/fs/cgroup", path, _quota_of_version_2)
        elif "cpu" in controllers.split(","):
            for mount in (controllers, "cpu"):
                found += _along(root / "sys/fs/cgroup" / mount, path, _quota_of_version_1)
    return found


def _along(mount: Path, path: str, quota) -> list[int]:
    """The quotas of a control group and of all above it. In a container its own group is the mount itself."""
    place = mount / path.strip("/")
    places = [place, *place.parents]
    return [cores for each in places if each.is_relative_to(mount) and (cores := quota(each)) is not None]


def _quota_of_version_2(group: Path) -> int | None:
    for line in _lines(group / "cpu.max"):
        quota, _, period = line.partition(" ")
        return _whole(quota, period)
    return None


def _quota_of_version_1(group: Path) -> int | None:
    quota, period = (next(iter(_lines(group / f"cpu.cfs_{name}_us")), "") for name in ("quota", "period"))
    return _whole(quota, period)


def _whole(quota: str, period: str) -> int | None:
    """Cores of a quota in a period, both in microseconds; None of no quota ('max', -1)."""
    amount, per = _number(quota), _number(period)
    return max(1, amount // per) if amount and per else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

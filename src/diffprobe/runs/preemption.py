"""A job of a sweep whose place SLURM takes for a more urgent one: it ends in good order, and SLURM starts it again."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

_PATIENCE = 30  # seconds that SLURM has to answer


def requeue_if_preempted(environment: Mapping[str, str] = os.environ) -> bool:
    """Asks SLURM to start this job again where SLURM has taken its place; says whether it will.

    A partition with a GraceTime sends SIGTERM and requeues what is still there after that time. A job that has ended by
    then counts as ended, so that one which heeds the signal has to ask. Scripts of users ask for themselves
    (docs/cluster.md), and those of submitit do not; of several tasks the first one asks.
    """
    job = environment.get("SLURM_JOB_ID")
    if environment.get("SUBMITIT_EXECUTOR") != "slurm" or job is None or environment.get("SLURM_PROCID", "0") != "0":
        return False
    if "SLURM_ARRAY_TASK_ID" in environment:  # the number of one task may be that of the whole array
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    fields = dict(re.findall(r"(\w+)=(\S+)", _scontrol("show", "job", job) or ""))
    taken = fields.get("JobState") == "RUNNING" and fields.get("PreemptTime", "None") != "None"
    return taken and _scontrol("requeue", job) is not None


def _scontrol(*arguments: str) -> str | None:
    """The output of scontrol; None where it fails."""
    try:
        done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

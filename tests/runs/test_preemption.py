"""A preempted job of a sweep asks SLURM to start it again, and no other job does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffprobe.runs.preemption import requeue_if_preempted

JOB = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
TAKEN = "JobId=7 JobState=RUNNING Requeue=1 PreemptTime=2026-05-04T12:00:00"


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Path:
    """A file of the requests to a scontrol that answers `show` with what the file `told` beside it holds."""
    script = tmp_path / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" = requeue ] || cat {tmp_path}/told\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "told").write_text(TAKEN)
    (tmp_path / "asked").touch()
    return tmp_path / "asked"


@pytest.mark.parametrize(
    ("more", "name"),
    [({}, "7"), ({"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}, "5_2")],
    ids=["a job", "one of an array"],
)
def test_a_job_whose_place_is_taken_is_started_again(asked, more, name):
    assert requeue_if_preempted({**JOB, **more})
    assert asked.read_text() == f"show job {name}\nrequeue {name}\n"


@pytest.mark.parametrize(
    "told",
    [
        "JobId=7 JobState=RUNNING PreemptTime=None",
        "JobId=7 JobState=CANCELLED PreemptTime=2026-05-04T12:00:00",
        "JobId=7 JobState=RUNNING",
    ],
    ids=["killed", "cancelled", "without preemption"],
)
def test_a_job_that_is_to_end_ends(asked, told):
    (asked.parent / "told").write_text(told)
    assert not requeue_if_preempted(JOB)
    assert asked.read_text() == "show job 7\n"


@pytest.mark.parametrize(
    "environment", [{"SLURM_JOB_ID": "7"}, {**JOB, "SLURM_PROCID": "1"}, {"SUBMITIT_EXECUTOR": "local"}]
)
def test_scripts_other_tasks_and_jobs_outside_slurm_ask_nothing(asked, environment):
    assert not requeue_if_preempted(environment)
    assert asked.read_text() == ""


def test_where_slurm_does_not_answer_the_job_is_not_said_to_go_on(asked):
    (asked.parent / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    assert not requeue_if_preempted(JOB)

"""Processes of one machine share its cores instead of fighting for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from diffprobe.threads import decoding_threads, share_threads, usable_cores

SIXTEEN = set(range(16))


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Sixteen cores; no variables of a cluster; torch's threads as before afterwards."""
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: SIXTEEN)
    for name in [name for name in os.environ if name.startswith("SLURM_") or name == "LOCAL_WORLD_SIZE"]:
        monkeypatch.delenv(name)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "DIFFPROBE_THREADS"):
        monkeypatch.setenv(name, "")  # so that whatever the test sets is undone
        monkeypatch.delenv(name)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("told", "cores"),
    [
        ({}, 16),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "2"}, 4),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "2"}, 4),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_NODEID": "1"}, 2),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1", "SLURM_NODEID": "2"}, 8),
        ({"SLURM_NTASKS_PER_NODE": "2"}, 8),
        ({"SLURM_CPUS_PER_TASK": "99"}, 16),
        ({"SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS_PER_NODE": "16"}, 1),
        ({"LOCAL_WORLD_SIZE": "4"}, 4),
        ({"LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_PER_TASK": "8"}, 2),
        ({"LOCAL_WORLD_SIZE": "64"}, 1),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_STEP_TASKS_PER_NODE": "(null)", "LOCAL_WORLD_SIZE": "x"}, 16),
    ],
)
def test_slurm_and_torchrun_say_how_many_cores_are_ours(told, cores, tmp_path):
    assert usable_cores(told, tmp_path) == cores


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/a/b", {"sys/fs/cgroup/a/cpu.max": "300000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 3),
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ("0::/gone", {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),  # seen from within a container
        (
            "5:memory:/\n4:cpu,cpuacct:/job",
            {
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        ("4:cpu:/", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 16),
        ("nonsense", {"sys/fs/cgroup/cpu.max": "garbage"}, 16),
    ],
)
def test_a_control_group_limits_the_cores(group, files, cores, tmp_path):
    for name, text in {"proc/self/cgroup": group, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert usable_cores({}, tmp_path) == cores


def test_threads_are_shared_and_shared_again(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert share_threads() == 8
    assert share_threads(2) == 4  # as soon as it is known that there are two
    assert (os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]) == ("4", "4")
    import torch

    assert torch.get_num_threads() == 4


def test_what_a_person_has_chosen_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share_threads(2) is None
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "NUMBA_NUM_THREADS" not in os.environ


def test_what_joblib_has_set_for_its_workers_is_not_a_persons_choice(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    monkeypatch.setenv("DIFFPROBE_THREADS", "0")  # noted where the sweep began
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert share_threads(2, chosen_by_joblib=True) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # of the shell of a job that submitit has sent to another machine
    assert share_threads() is None


@pytest.mark.parametrize("command", ["backbone", "activations", "pocket", "app"])
def test_every_command_limits_its_threads_before_it_loads_what_fills_them(command):
    code = (
        "import os, runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('diffprobe.{command}', run_name='__main__')\n"
        "except SystemExit: print(os.environ.get('OMP_NUM_THREADS'), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "SLURM_CPUS_PER_TASK": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "1 False"


def test_decoders_are_as_many_as_the_cores_of_the_process_allow(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")

    def at_work(_: int) -> int:
        time.sleep(0.01)
        return threading.get_ident()

    with decoding_threads() as pool:
        assert 1 < len(set(pool.map(at_work, range(40)))) <= 5

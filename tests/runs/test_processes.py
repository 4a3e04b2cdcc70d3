"""The processes that SLURM has started are those that the trainer wants, or one line says what to type."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import submitit
from hydra.types import RunMode
from omegaconf import OmegaConf

from diffprobe.errors import UserError
from diffprobe.runs.processes import by_joblib, check_processes, processes_at_once

STEP = {"SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "python"}


def trainer(devices: int = 1, nodes: int = 1) -> Any:
    return OmegaConf.create({"devices": devices, "num_nodes": nodes})


def moded(name: str, **launcher: object):
    return OmegaConf.create({"mode": RunMode[name], "launcher": launcher})


@pytest.mark.parametrize(
    ("wanted", "slurm", "message"),
    [
        (trainer(2), {**STEP, "SLURM_NTASKS": "2", "SLURM_NNODES": "1"}, "use --ntasks-per-node, 'srun --nodes=1 "),
        (
            trainer(1),
            {**STEP, "SLURM_NTASKS": "2", "SLURM_NNODES": "1"},
            "each would do the whole work: use --ntasks=1",
        ),
        (
            trainer(4),
            {**STEP, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
            "started 2 tasks .* for trainer.devices=4 .*'srun --nodes=1 --ntasks-per-node=4'.*trainer.devices=2",
        ),
        (
            trainer(2),
            {**STEP, "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"},
            "started 4 tasks .*trainer.devices=2 trainer.num_nodes=2",
        ),
        (trainer(2), {**STEP, "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, "started 1 task .* for trainer.devices=2"),
        (
            trainer(1),
            {**STEP, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
            "trainer=slurm trainer.devices=2",
        ),
        (
            trainer(2),
            {"SLURM_JOB_NAME": "job.sh", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
            "one process was started by hand: begin the command with 'srun --nodes=1 --ntasks-per-node=2'",
        ),
        (trainer(2, nodes=2), {}, "trainer.num_nodes=2, but nobody has started"),
    ],
)
def test_other_processes_than_the_trainer_wants_are_refused(wanted, slurm, message):
    with pytest.raises(UserError, match=message):
        check_processes(wanted, moded("RUN"), slurm)


@pytest.mark.parametrize(
    ("wanted", "slurm"),
    [
        (trainer(), {}),
        (trainer(2), {}),
        (trainer(), {**STEP, "SLURM_NTASKS": "1", "SLURM_NNODES": "1"}),
        (trainer(2), {**STEP, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}),
        (trainer(2, nodes=2), {**STEP, "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2"}),
        (trainer(2), {"SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}),
        (trainer(2, nodes=2), {"SLURM_NTASKS": "2", "TORCHELASTIC_RUN_ID": "none"}),
        (trainer(2, nodes=2), {"NODE_RANK": "1", "MASTER_ADDR": "n1"}),
    ],
)
def test_the_processes_that_the_trainer_wants_are_taken(wanted, slurm):
    check_processes(wanted, moded("RUN"), slurm)


def test_a_job_of_a_sweep_starts_no_processes_of_its_own():
    with pytest.raises(UserError, match=r"trainer\.devices=2 in a sweep"):
        check_processes(trainer(2), moded("MULTIRUN"), {})
    check_processes(
        trainer(2), moded("MULTIRUN"), {**STEP, "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"}
    )


def test_devices_and_jobs_that_run_at_once_share_the_cores(monkeypatch):
    for name in ("SLURM_NTASKS", "LOCAL_WORLD_SIZE", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)
    joblib = moded("MULTIRUN", _target_="hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher", n_jobs=3)
    assert processes_at_once(trainer(2), moded("RUN")) == 2
    assert (processes_at_once(trainer(), joblib), by_joblib(joblib)) == (3, True)
    joblib.launcher.n_jobs = -1
    monkeypatch.setattr("diffprobe.runs.processes.usable_cores", lambda: 8)
    assert processes_at_once(trainer(), joblib) == 8
    assert not by_joblib(moded("RUN"))
    monkeypatch.setenv("SLURM_NTASKS", "2")  # whose share is reckoned already
    assert processes_at_once(trainer(2), moded("RUN")) == 1


def counted(folder: Path, number: int) -> int:
    """The jobs at once that one of two sees; neither looks before both have started, nor ends before both have."""
    found = []
    for mark in ("started", "looked"):
        (folder / f"{mark}{number}").touch()
        while len(list(folder.glob(f"{mark}?"))) < 2:
            time.sleep(0.01)
        found.append(processes_at_once(trainer(), moded("MULTIRUN")))
    return found[0]


def test_jobs_of_the_local_launcher_of_submitit_that_run_at_once_are_counted(tmp_path):
    executor = submitit.LocalExecutor(tmp_path / "logs")
    executor.update_parameters(timeout_min=2)
    jobs = [executor.submit(counted, tmp_path, number) for number in range(2)]
    assert [job.result() for job in jobs] == [2, 2]


def test_more_processes_than_cores_are_refused():
    from diffprobe.runs.trainers import check_trainer

    def settings(devices: int) -> Any:
        chosen = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": devices}
        probe = {"epochs": 1, "validate_every": 1}
        return OmegaConf.create({"trainer": chosen, "callbacks": {}, "probe": probe})

    with pytest.raises(UserError, match=r"trainer\.devices=99: on CPUs a device is a process"):
        check_trainer(settings(99))
    check_trainer(settings(2))
    spawning = settings(2)
    spawning.trainer.strategy = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "start_method": "spawn"}
    with pytest.raises(UserError, match=r"spawns or forks processes.*use trainer\.strategy=ddp"):
        check_trainer(spawning)
    lacks = settings(1)
    lacks.trainer.gradient_clip_algorithm = "sideways"
    with pytest.raises(UserError, match=r"Lightning cannot work with .*trainer\.gradient_clip_algorithm=sideways"):
        check_trainer(lacks)

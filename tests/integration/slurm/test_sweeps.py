"""Sweeps as jobs of SLURM: by the launcher, beyond their time limit, and as an array of which a job is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from diffprobe.runs.folder import FINISHED
from tests.integration.slurm.cluster import (
    LAUNCHER,
    PATIENCE,
    SMALL,
    held,
    scores,
    script_of_page,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.programs]


def evaluations(folder: Path) -> int:
    return json.loads((folder / FINISHED).read_text())["network_evaluations"]


def test_of_a_sweep_one_job_is_stopped_twice_and_goes_on_and_the_other_is_undisturbed(cluster, undisturbed, tmp_path):
    """It is stopped near its time limit and by preemption; each time SLURM starts it again."""
    sweep, gate, reached = tmp_path / "sweep", tmp_path / "gate", tmp_path / "gate" / "reached-0"
    gate.mkdir()
    (gate / "reached-1").touch()  # of the two, this one does not wait
    limits = ("timeout_min=10", "signal_delay_s=120", "max_num_timeout=1", "partition=preemptible")
    options = [*(each for each in LAUNCHER if "partition" not in each), *(f"hydra.launcher.{each}" for each in limits)]
    options += ["seed=0,1", f"hydra.sweep.dir={sweep}", *held(gate, "${seed}", after=2)]
    process = cluster.begin("-m", *SMALL, *options, cwd=tmp_path, said=tmp_path / "said")
    try:
        wait_for(lambda: reached.exists() and (sweep / "1" / FINISHED).exists(), "a job to be held, and one to end")
        (said,) = sweep.glob(".submitit/*_0/*_log.err")
        job = said.parent.name
        assert "#SBATCH --signal=USR2@120\n" in next(said.parent.parent.glob("*/*.sh")).read_text()
        reached.unlink()
        assert cluster.run("scancel", "--signal=USR2", job).returncode == 0  # as SLURM does 120 s before the limit
        wait_for(reached.exists, "the job to go on")
        assert "DUE TO JOB REQUEUE" in said.read_text()
        node = cluster.shown(job)["NodeList"]
        urgent = cluster.run("srun", "--partition=urgent", f"--nodelist={node}", "--exclusive", "true")
        assert urgent.returncode == 0, urgent.stderr
        (gate / "open").touch()
        assert process.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said.read_text()
    assert said.read_text().count("job 0 stopped by SIGTERM; SLURM needs its place, and starts it again later") == 1
    assert said.with_suffix(".out").read_text().count("Starting with JobEnvironment") == 3
    for seed in "01":
        assert scores(sweep / seed) == scores(undisturbed / seed)
    assert evaluations(sweep / "1") == evaluations(undisturbed / "1") == 24
    assert evaluations(sweep / "0") == 24 - 2 * 2 * 4  # twice two batches of two images at two steps were stored


def test_of_an_array_with_a_killed_job_the_others_finish_and_it_can_be_made_again(cluster, undisturbed, tmp_path):
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    gate.mkdir()
    places = {"runs/seeds": str(runs), "%x-": f"{tmp_path}/%x-", "0-2": "0-1"}
    seed = ("$SLURM_ARRAY_TASK_ID", "'$SLURM_ARRAY_TASK_ID'")  # for the shell, between quoted overrides
    wait = [each.replace("name=run", f"name={seed[1]}") for each in held(gate)]
    script = script_of_page("seeds", tmp_path, places, *SMALL, f"features.folder={tmp_path / 'stores'}", *wait)
    array = cluster.submit(script)
    wait_for(lambda: all((gate / f"reached-{task}").exists() for task in "01"), "both jobs to be in the middle")
    os.kill(cluster.process(f"{array}_1", "train.py"), signal.SIGKILL)
    cluster.wait_for_state(f"{array}_1", "FAILED")
    (gate / "open").touch()
    cluster.wait_for_state(f"{array}_0", "COMPLETED")
    assert cluster.shown(f"{array}_1")["ExitCode"] == "137:0"
    assert "task 0: Killed" in (tmp_path / f"seeds-{array}_1.log").read_text()
    assert not (runs / "1" / FINISHED).exists()
    assert not (runs / "1" / "scores.parquet").exists()
    again = cluster.submit(script, "--array=1")
    cluster.wait_for_state(f"{again}_1", "COMPLETED")
    for task in "01":
        assert scores(runs / task) == scores(undisturbed / task)
    assert 0 < evaluations(runs / "1") < 24  # of what was stored before it was killed, none was made again
    assert not list((tmp_path / "stores").rglob("*.tmp*"))

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

pytestmark = pytest.mark.slow


def evaluations(folder: Path) -> int:
    return json.loads((folder / FINISHED).read_text())["network_evaluations"]


def test_a_sweep_gives_the_results_of_runs_without_slurm(cluster, undisturbed, tmp_path):
    sweep = tmp_path / "sweep"
    done = cluster.train("-m", *SMALL, *LAUNCHER, "seed=0,1", f"hydra.sweep.dir={sweep}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for seed in "01":
        assert scores(sweep / seed) == scores(undisturbed / seed)
        assert evaluations(sweep / seed) == evaluations(undisturbed / seed) == 24


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
    again = cluster.submit(script, "--array=0-1")
    for task in "01":
        cluster.wait_for_state(f"{again}_{task}", "COMPLETED")
        assert scores(runs / task) == scores(undisturbed / task)
    assert "skipped, since it is finished" in (tmp_path / f"seeds-{again}_0.log").read_text()
    assert 0 < evaluations(runs / "1") < 24  # of what was stored before it was killed, none was made again
    assert not list((tmp_path / "stores").rglob("*.tmp*"))


def test_a_job_beyond_its_time_limit_is_started_again_and_goes_on(cluster, undisturbed, tmp_path):
    sweep = tmp_path / "sweep"
    limits = ("timeout_min=1", "signal_delay_s=20", "max_num_timeout=2")  # the signal comes after 10 to 40 s
    options = [*LAUNCHER, *(f"hydra.launcher.{limit}" for limit in limits), f"hydra.sweep.dir={sweep}", "seed=0"]
    process = cluster.begin("-m", *SMALL, *options, *held(tmp_path), cwd=tmp_path, said=tmp_path / "said")
    try:
        wait_for((tmp_path / "reached-run").exists, "the job to be in the middle")
        (said,) = sweep.glob(".submitit/*/*_log.err")
        wait_for(lambda: "DUE TO JOB REQUEUE" in said.read_text(), "the time limit")
        assert cluster.run("scontrol", "update", f"JobId={said.parent.name}", "TimeLimit=60").returncode == 0
        assert process.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said.read_text()
    assert said.with_suffix(".out").read_text().count("Starting with JobEnvironment") == 2
    assert scores(sweep / "0") == scores(undisturbed / "0")
    assert evaluations(sweep / "0") == 24 - 3 * 4  # three batches of two images at two steps were stored


def test_a_preempted_job_of_a_sweep_is_started_again_and_goes_on(cluster, undisturbed, tmp_path):
    sweep = tmp_path / "sweep"
    partition = ("hydra.launcher.partition=preemptible", "hydra.launcher.cpus_per_task=2")  # all of a node
    options = [*(each for each in LAUNCHER if "partition" not in each and "cpus" not in each), *partition, "seed=0"]
    options += [f"hydra.sweep.dir={sweep}", *held(tmp_path)]
    process = cluster.begin("-m", *SMALL, *options, cwd=tmp_path, said=tmp_path / "said")
    try:
        wait_for((tmp_path / "reached-run").exists, "the job to be in the middle")
        (said,) = sweep.glob(".submitit/*/*_log.err")
        node = cluster.shown(said.parent.name)["NodeList"]
        urgent = cluster.run("srun", "--partition=urgent", f"--nodelist={node}", "--exclusive", "true")
        assert urgent.returncode == 0, urgent.stderr
        assert process.wait(PATIENCE) == 0, (tmp_path / "said").read_text()
    finally:
        process.kill()
        process.wait()
    assert "job 0 stopped by SIGTERM; SLURM needs its place, and starts it again later" in said.read_text()
    assert scores(sweep / "0") == scores(undisturbed / "0")
    assert evaluations(sweep / "0") == 24 - 3 * 4

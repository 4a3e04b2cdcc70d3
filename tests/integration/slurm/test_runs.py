"""Single runs under SLURM: several tasks share one, and what is preempted or cancelled goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffprobe.runs.folder import FINISHED
from tests.commands import train
from tests.integration.slurm.cluster import SMALL, held, scores, script_of_page, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.programs]

# Gradients are added up in another order, in float32: differences of 1.2e-7 were seen.
CLOSE = 1e-5
TRAINED = (
    *(each for each in SMALL if each not in ("probe=ridge", "trainer=cpu")),
    "probe=quick",
    "trainer.accelerator=cpu",
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with trained probes in one process."""
    folder = tmp_path_factory.mktemp("alone")
    done = train(*TRAINED, f"hydra.run.dir={folder / 'run'}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def by_key(folder: Path) -> dict[tuple, float]:
    return {row[:-1]: row[-1] for row in scores(folder)}


def test_a_number_of_tasks_without_their_machines_is_one_line(cluster, tmp_path):
    chosen = ("trainer=slurm", "trainer.accelerator=cpu", "trainer.devices=2", "features=disk")
    done = cluster.train(*chosen, f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path, before=("srun", "--ntasks=2"))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("srun: ")]
    assert line.startswith("error: srun has started 2 tasks by --ntasks=2")
    assert "use --ntasks-per-node, 'srun --nodes=1 --ntasks-per-node=2'" in line
    assert not [*(tmp_path / "run").iterdir()]  # the folder is Hydra's


def test_two_tasks_on_two_nodes_give_the_scores_of_one_process(cluster, alone, tmp_path):
    places = {"runs/ddp": str(tmp_path / "run"), "%x-": f"{tmp_path}/%x-"}
    counts = {"--ntasks-per-node=4": "--ntasks-per-node=1", "trainer.devices=4 ": "trainer.devices=1 "}
    store = f"features.folder={tmp_path / 'stores'}"
    script = script_of_page("ddp", tmp_path, {**places, **counts, "features=disk ": ""}, *TRAINED, store)
    job = cluster.submit(script)
    cluster.wait_for_state(job, "COMPLETED")
    assert cluster.shown(job)["NumNodes"] == "2"
    assert by_key(tmp_path / "run") == pytest.approx(by_key(alone), abs=CLOSE, nan_ok=True)
    assert json.loads((tmp_path / "run" / FINISHED).read_text())["network_evaluations"] == 24


def test_a_cancelled_job_is_closed_and_the_same_command_goes_on(cluster, undisturbed, tmp_path):
    gate, run, log = tmp_path / "gate", tmp_path / "run", tmp_path / "job.log"
    gate.mkdir()
    typed = [*(each for each in SMALL if each != "logger=csv"), *held(gate), f"features.folder={tmp_path / 'stores'}"]
    typed += ["logger=wandb", f"hydra.run.dir={run}"]
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/bash\n#SBATCH --output={log}\nsrun python train.py {' '.join(typed)}\n")
    job = cluster.submit(script)
    wait_for((gate / "reached-run").exists, "the run to be in the middle")
    assert cluster.run("scancel", job).returncode == 0
    cluster.wait_for_state(job, "CANCELLED")
    told = "stopped by SIGTERM; the same command with hydra.run.dir="
    wait_for(lambda: told in log.read_text(), "the run to say that it stops")
    assert "Traceback" not in log.read_text()
    assert {path.name for path in run.iterdir()} == {".hydra", "wandb"}
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]
    (gate / "open").touch()
    done = train(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert scores(run) == scores(undisturbed / "0")
    assert 0 < json.loads((run / FINISHED).read_text())["network_evaluations"] < 24


def test_a_job_near_its_time_limit_and_a_preempted_one_are_started_again_and_go_on(cluster, undisturbed, tmp_path):
    gate, log, reached = tmp_path / "gate", tmp_path / "long.log", tmp_path / "gate" / "reached-run"
    gate.mkdir()
    places = {"runs/long": str(tmp_path / "run"), "%x-%j.log": str(log)}
    small = [*SMALL, f"features.folder={tmp_path / 'stores'}", *held(gate, after=2)]
    job = cluster.submit(script_of_page("long", tmp_path, places, *small), "--exclusive")
    wait_for(reached.exists, "the run to be in the middle")
    reached.unlink()
    assert cluster.run("scancel", "--signal=USR1", job).returncode == 0  # as --signal=USR1@120 does before the limit
    wait_for(reached.exists, "the run to go on")
    assert cluster.shown(job)["Restarts"] == "1"
    node = cluster.shown(job)["NodeList"]
    assert cluster.run("srun", "--partition=urgent", f"--nodelist={node}", "--exclusive", "true").returncode == 0
    (gate / "open").touch()
    cluster.wait_for_state(job, "COMPLETED")
    assert cluster.shown(job)["Restarts"] == "2"
    said = log.read_text()
    assert said.index("stopped by SIGUSR1; ") < said.index("stopped by SIGTERM; ")
    assert scores(tmp_path / "run") == scores(undisturbed / "0")
    assert json.loads((tmp_path / "run" / FINISHED).read_text())["network_evaluations"] == 24 - 2 * 2 * 4

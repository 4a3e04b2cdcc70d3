"""A small SLURM of the tests' own, jobs of it, and the scripts of docs/cluster.md in tests' size."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from diffprobe.probes.score_table import read_scores
from tests.commands import ROOT

START = Path(__file__).with_name("start_cluster.sh")
PATIENCE = 100.0  # seconds that anything may take
# 12 images in batches and shards of 2. On one step of two a run takes 5 s beside the imports.
SMALL = (
    "data.count=12",
    "layers=headline",
    "steps=two",
    "property=depth",
    "probe=ridge",
    "control=none",
    "features=disk",
    "features.batch_size=2",
    "features.images_per_shard=2",
    "report=no_examples",
    "trainer=cpu",
    "logger=csv",
)
LAUNCHER = (
    "hydra/launcher=slurm",
    "hydra.launcher.partition=main",
    "hydra.launcher.gpus_per_node=null",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)


class Cluster:
    """What `start_cluster.sh` has started in `folder`, and commands in its environment.

    Args:
        folder: a new one.

    Raises:
        subprocess.CalledProcessError: it does not start. The exit code is 2 where it cannot be had here.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        started = subprocess.run([START, "start", folder], capture_output=True, text=True, check=True)
        (line,) = re.findall(r"SLURM_CONF='(.*)' PATH='(.*)':\$PATH MASTER_ADDR=(\S+)", started.stdout)
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SUBMITIT"))}
        self.environment = {
            **outside,
            "SLURM_CONF": line[0],
            "PATH": os.pathsep.join((line[1], str(Path(sys.executable).parent), os.environ["PATH"])),
            "MASTER_ADDR": line[2],
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),  # of jobs, which see the gate too
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
            "COLUMNS": "100",
        }

    def stop(self) -> None:
        subprocess.run([START, "stop", self._folder], check=True)

    def run(self, *command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """A command on the machine that jobs are submitted from."""
        return subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, env=self.environment, timeout=2 * PATIENCE, check=False
        )

    def train(self, *arguments: str, cwd: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return self.run(*before, sys.executable, ROOT / "train.py", *arguments, cwd=cwd)

    def begin(self, *arguments: str, cwd: Path, said: Path) -> subprocess.Popen[str]:
        """A train.py that goes on beside the test; what it prints goes to `said`."""
        with said.open("w") as file:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "train.py"), *arguments],
                cwd=cwd,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def submit(self, script: Path, *options: str) -> str:
        """The number of a new job."""
        done = self.run("sbatch", "--parsable", *options, script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def shown(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job: JobState, ExitCode, Restarts, ..."""
        return dict(re.findall(r"(\w+)=(\S+)", self.run("scontrol", "--oneliner", "show", "job", job).stdout))

    def wait_for_state(self, job: str, state: str) -> None:
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        wait_for(lambda: self.shown(job).get("JobState") in (state, *ended), f"job {job} to be {state}")
        assert self.shown(job).get("JobState") == state, self.shown(job)

    def process(self, job: str, holds: str) -> int:
        """The process of a job of an array whose command line holds a text."""
        array, _, task = job.partition("_")
        for place in Path("/proc").glob("[0-9]*"):
            try:
                command = (place / "cmdline").read_bytes().decode().split("\0")
                told = (place / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:  # it has ended
                continue
            mine = {f"SLURM_CONF={self.environment['SLURM_CONF']}", f"SLURM_ARRAY_JOB_ID={array}"} <= set(told)
            python = "python" in Path(command[0]).name
            if mine and python and f"SLURM_ARRAY_TASK_ID={task}" in told and any(holds in part for part in command):
                return int(place.name)
        raise AssertionError(f"{job} has no process of {holds}")


def wait_for(reached: Callable[[], object], what: str) -> None:
    """Until something is so, or has not become so in time."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.1)


def held(gate: Path, name: str = "run", after: int = 3) -> list[str]:
    """Overrides for a run that waits at a gate after so many batches."""
    return [
        "+callbacks.gate._target_=tests.integration.slurm.gate.Gate",
        f"callbacks.gate.folder={gate}",
        f"callbacks.gate.name={name}",
        f"callbacks.gate.after={after}",
    ]


def script_of_page(name: str, folder: Path, replaced: dict[str, str], *overrides: str) -> Path:
    """The script of docs/cluster.md with that job name, for the tests' cluster.

    Args:
        replaced: text of the page -> what stands there instead; each must be there once.
        overrides: added to its train.py.
    """
    page = (ROOT / "docs" / "cluster.md").read_text()
    (text,) = [
        block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if f"#SBATCH --job-name={name}\n" in block
    ]
    for there, instead in {**replaced, " --gpus-per-node=": " --comment="}.items():
        assert text.count(there) == 1, f"{there} is in {name} {text.count(there)} times"
        text = text.replace(there, instead)
    text = re.sub(r"--cpus-per-task=\d+ --mem=\d+G", "--cpus-per-task=1 --mem=1G", text)
    lines = text.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("srun python train.py")]
    lines[at] += "".join(f" '{override}'" for override in overrides)
    script = folder / f"{name}.sh"
    script.write_text("\n".join(lines) + "\n")
    return script


def scores(folder: Path) -> list[tuple]:
    """All rows of a run's score table, in one order."""
    table = read_scores(folder)
    names = [name for name in table.columns if name != "value"]
    return [*table.astype(dict.fromkeys(names, str)).sort_values(names).itertuples(index=False, name=None)]


def not_here() -> str | None:
    """Why there can be no cluster on this machine; None where there can be."""
    if shutil.which("sbatch") is None:
        return "sbatch is not installed (Debian: apt-get install slurm-wlm munge)"
    return None

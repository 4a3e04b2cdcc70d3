"""Runs the doors as commands, as a person does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES = 6


def overrides(material: Path, runs: Path) -> list[str]:
    return [
        "model=local",
        f"model.path={material / 'model'}",
        f"data.prompts={material / 'prompts.csv'}",
        "labeler=files",
        f"labeler.path={material / 'maps'}",
        "layers=headline",
        "steps.sampling=2",
        "probe=quick",
        "features.batch_size=2",
        "report.examples=1",
        f"hydra.run.dir={runs}",
    ]


def train(*arguments: str, cwd: Path | None = None, threads: str | None = "1") -> subprocess.CompletedProcess:
    return command("train.py", *arguments, cwd=cwd, threads=threads)


def command(
    script: str, *arguments: str, cwd: Path | None = None, threads: str | None = "1"
) -> subprocess.CompletedProcess:
    """Runs a door in `cwd`; `threads` of OpenMP, None for as many as there are."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, "COLUMNS": "100", **({"OMP_NUM_THREADS": threads} if threads else {})},
        timeout=300,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess) -> str:
    """The error of a run that went wrong as it should."""
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line

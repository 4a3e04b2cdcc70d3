"""Runs train.py and analyze.py as commands, as a person does."""

from __future__ import annotations

import io
import logging
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra

from diffprobe.signals import STOPPING

ROOT = Path(__file__).parents[1]
IMAGES = 6
TERMINAL = {"COLUMNS": "100"}


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


def train(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return command("train.py", *arguments, cwd=cwd)


def command(script: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs a script in `cwd`, in this process, since a new one takes ten seconds to import what it needs."""
    out, err = io.StringIO(), io.StringIO()
    with _as_typed(script, arguments, cwd), redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess([script, *arguments], int(code), out.getvalue(), err.getvalue())


def command_apart(
    script: str, *arguments: str, cwd: Path | None = None, threads: str | None = "1"
) -> subprocess.CompletedProcess:
    """Runs a script in `cwd` in a process of its own; `threads` of OpenMP, None for as many as there are."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, **TERMINAL, **({"OMP_NUM_THREADS": threads} if threads else {})},
        timeout=300,
        check=False,
    )


@contextmanager
def _as_typed(script: str, arguments: Sequence[str], cwd: Path | None) -> Iterator[None]:
    """Command line, environment and folder of a command; afterwards they, and who listens to logs, are as before."""
    line, environment, folder, listeners = sys.argv, dict(os.environ), Path.cwd(), logging.root.handlers[:]
    heard = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGALRM)}
    sys.argv = [str(ROOT / script), *arguments]
    os.environ.update(TERMINAL)
    os.chdir(cwd or folder)
    try:
        yield
    finally:
        sys.argv = line
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        logging.root.handlers[:] = listeners
        for number, handler in heard.items():
            signal.signal(number, handler)
        GlobalHydra.instance().clear()


def one_line(done: subprocess.CompletedProcess) -> str:
    """The error of a run that went wrong as it should."""
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line

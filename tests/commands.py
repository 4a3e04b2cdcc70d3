"""Runs train.py and analyze.py as commands, as a person does."""

from __future__ import annotations

import io
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from matplotlib.figure import Figure
from PIL import Image

from diffprobe.signals import STOPPING
from tests.processes import FORK

ROOT = Path(__file__).parents[1]
IMAGES = 6
TERMINAL = {"COLUMNS": "100"}
# To list all installed packages takes W&B longer than all else that it does at the start of a run.
TRACKER = {"WANDB_X_SAVE_REQUIREMENTS": "false"}
_DRAW = Figure.savefig


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
    return command("train.py", *arguments, cwd=cwd, blank_figures=True)


def command(
    script: str, *arguments: str, cwd: Path | None = None, blank_figures: bool = False
) -> subprocess.CompletedProcess:
    """Runs a script in `cwd`, in this process, since a new one takes ten seconds to import what it needs.

    With `blank_figures` every figure is made, and its files are of one pixel: to draw them takes most of a small run.
    Without, it is drawn once, coarsely, and its PDF is as blank.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        _as_typed(script, arguments, cwd),
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(Figure, "savefig", _save_blank if blank_figures else save_coarse),
    ):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess([script, *arguments], int(code), out.getvalue(), err.getvalue())


def command_apart(
    script: str, *arguments: str, cwd: Path | None = None, threads: str | None = "1"
) -> subprocess.CompletedProcess:
    """Runs a script in `cwd` in a new interpreter; `threads` of OpenMP, None for as many as there are."""
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


class Forked:
    """A script that runs in `cwd` in a fork of this process, whose imports it need not repeat, in its own session."""

    def __init__(self, script: str, *arguments: str, cwd: Path, said: Path) -> None:
        self._files = [said.with_suffix(f".{name}") for name in ("out", "err")]
        for path in self._files:
            path.touch()
        self._line = [script, *arguments]
        self._process = FORK.Process(target=self._run, args=(script, arguments, cwd))
        self._process.start()

    def _run(self, script: str, arguments: Sequence[str], cwd: Path) -> None:
        os.setsid()
        os.environ["OMP_NUM_THREADS"] = "1"  # those of the parent are not here, and would be waited for
        torch.set_num_threads(1)
        sys.stdout, sys.stderr = (path.open("w", buffering=1) for path in self._files)
        for number, stream in enumerate((sys.stdout, sys.stderr), 1):
            os.dup2(stream.fileno(), number)  # of the processes that it starts, too
        logging.root.handlers.clear()  # they write to the streams of the parent
        with _as_typed(script, arguments, cwd):
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
            runpy.run_path(str(ROOT / script), run_name="__main__")

    def wait_for(self, text: str) -> None:
        """Until it has printed `text`."""
        while text not in self._files[0].read_text():
            assert self._process.is_alive(), self._files[1].read_text()
            time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        """A signal to it and to what it started, as a terminal sends it."""
        assert self._process.pid is not None
        os.killpg(self._process.pid, number)

    def end(self) -> subprocess.CompletedProcess:
        self._process.join(300)
        if self._process.exitcode is None:
            self.send(signal.SIGKILL)
            self._process.join()
        return subprocess.CompletedProcess(
            self._line, self._process.exitcode, *(path.read_text() for path in self._files)
        )


def _save_blank(figure: Figure, path: Path, format: str, **options: object) -> None:
    Image.new("RGB", (1, 1)).save(path, format)


def save_coarse(figure: Figure, path: Path, format: str, **options: object) -> None:
    """In place of `Figure.savefig`."""
    if format == "pdf":  # to embed its fonts takes longer than all that is drawn
        _save_blank(figure, path, format)
    else:
        _DRAW(figure, path, format=format, **{**options, "dpi": 50})


@contextmanager
def _as_typed(script: str, arguments: Sequence[str], cwd: Path | None) -> Iterator[None]:
    """Command line, environment and folder of a command; afterwards they, and who listens to logs, are as before."""
    line, environment, folder, listeners = sys.argv, dict(os.environ), Path.cwd(), logging.root.handlers[:]
    heard = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGALRM)}
    sys.argv = [str(ROOT / script), *arguments]
    os.environ.update({**TERMINAL, **TRACKER})
    os.chdir(cwd or folder)
    try:
        # Hydra composes every configuration twice, the first time for its mode alone, which no configuration here sets.
        with patch.object(Hydra, "get_mode", return_value=None):
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

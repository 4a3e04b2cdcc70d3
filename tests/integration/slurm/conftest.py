"""One small cluster for all tests of a process, with what they compare with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import train
from tests.integration.slurm.cluster import SMALL, Cluster, not_here


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started here, so that no test ever submits to the SLURM of a machine that has one."""
    why = not_here()
    if why is not None:
        pytest.skip(why)
    try:
        started = Cluster(tmp_path_factory.mktemp("slurm") / "box")
    except subprocess.CalledProcessError as error:
        if error.returncode == 2:
            pytest.skip(error.stderr.strip())
        raise AssertionError(error.stderr) from error
    yield started
    started.stop()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the runs with seeds 0 and 1, made in one process without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for seed in "01":
        done = train(*SMALL, f"seed={seed}", f"hydra.run.dir={folder / seed}", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder

"""The script that starts a cluster starts it once, says why it cannot, and leaves nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.slurm.cluster import START, Cluster

DAEMONS = ("munged", "munge", "slurmctld", "slurmd", "sbatch", "srun")


def refused(*arguments: str | Path, path: Path) -> str:
    """What it says on a machine whose commands lie in `path`."""
    done = subprocess.run([START, *arguments], capture_output=True, text=True, env={"PATH": str(path)}, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def commands(tmp_path) -> Path:
    """A folder of commands, SLURM's among them, which do nothing. Its `id` is that of a user."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("env", "bash", "ls"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name in DAEMONS:
        (folder / name).symlink_to(str(shutil.which("true")))
    (folder / "id").write_text("#!/usr/bin/env bash\necho 1000\n")
    (folder / "id").chmod(0o755)
    return folder


def test_it_refuses_in_one_line_where_there_can_be_no_cluster(commands, tmp_path):
    assert "only root can start SLURM's daemons" in refused("start", tmp_path / "box", path=commands)
    assert "unknown command 'restart'; give start or stop" in refused("restart", path=commands)
    (commands / "slurmd").unlink()
    told = refused("start", tmp_path / "box", path=commands)
    assert told.endswith("slurmd is not installed (Debian: apt-get install slurm-wlm munge)")
    assert not (tmp_path / "box").exists()


def test_it_does_not_take_a_folder_of_other_files(commands, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").touch()
    (commands / "id").write_text("#!/usr/bin/env bash\necho 0\n")
    assert "is not empty" in refused("start", tmp_path / "home", path=commands)
    assert (tmp_path / "home" / "thesis").exists()


@pytest.mark.slow
@pytest.mark.programs
def test_it_starts_once_and_leaves_nothing(cluster, tmp_path):
    box = tmp_path / "box"
    first = Cluster(box)
    try:
        assert Cluster(box).environment == first.environment
        done = first.run("srun", "--nodes=2", "--ntasks-per-node=1", "bash", "-c", "echo $SLURMD_NODENAME")
        assert sorted(done.stdout.split()) == ["n1", "n2"]
        pids = [int((box / name).read_text()) for name in ("munged.pid", "slurmctld.pid", "n1/pid", "n2/pid")]
    finally:
        first.stop()
    assert not box.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert cluster.run("sinfo").returncode == 0  # the other cluster is untouched

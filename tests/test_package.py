"""What is built from the checkout holds all that is needed, nothing else, and runs where no checkout is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import ROOT

LARGEST = 20_000_000  # bytes of a wheel
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
SCRIPTS = ("train.py", "analyze.py")
NOT_SOURCE = ("__pycache__", "*.egg-info", "local")
LAUNCH = "import sys; from diffprobe.commands.console import main; sys.exit(main())\n"  # as pip writes it


class Built(NamedTuple):
    source: tarfile.TarFile
    wheel: zipfile.ZipFile
    path: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """A source distribution, and the wheel that is made of it, as `python -m build` does, but without network."""
    place = tmp_path_factory.mktemp("package")
    checkout = place / "checkout"
    for folder in ("src", "conf", "tests/cli"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    for name in (*FILES, *SCRIPTS, "tests/test_files.py"):
        shutil.copy(ROOT / name, checkout / name)
    (checkout / "conf" / "local").mkdir()
    (checkout / "conf" / "local" / "default.yaml").write_text("seed: 1\n")
    with tarfile.open(_build("sdist", checkout, place)) as packed:
        packed.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    path = _build("wheel", unpacked, place)
    return Built(tarfile.open(next(place.glob("*.tar.gz"))), zipfile.ZipFile(path), path)


def _build(kind: str, folder: Path, place: Path) -> Path:
    code = f"from setuptools import build_meta as b; print(b.build_{kind}({str(place)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """A folder with what a wheel installs, and the script of its console command."""
    place = tmp_path_factory.mktemp("installed")
    built.wheel.extractall(place)
    (place / "run_diffprobe.py").write_text(LAUNCH)
    return place


def diffprobe(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(installed / "run_diffprobe.py"), *arguments],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(installed), "HOME": str(cwd), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_code_configurations_and_data_and_nothing_else(built):
    inside = {name for name in built.wheel.namelist() if ".dist-info/" not in name}
    conf = {path.relative_to(ROOT) for path in (ROOT / "conf").rglob("*.yaml") if "local" not in path.parts[:-1]}
    source = {path.relative_to(ROOT / "src") for path in (ROOT / "src" / "diffprobe").rglob("*") if path.is_file()}
    source = {path for path in source if "__pycache__" not in path.parts}
    assert inside == {f"diffprobe/{path}" for path in conf} | {str(path) for path in source}
    assert {"diffprobe/py.typed", "diffprobe/conf/train.yaml", "diffprobe/report/html/page.html"} <= inside
    assert any(name.endswith(".safetensors") for name in inside)


def test_the_wheel_is_small(built):
    size = built.path.stat().st_size
    print(f"wheel: {size / 1e6:.1f} MB")
    assert size <= LARGEST


def test_the_source_distribution_holds_the_scripts_and_no_tests(built):
    inside = {name.partition("/")[2] for name in built.source.getnames()}
    assert {*FILES, *SCRIPTS} <= inside
    tops = {name.partition("/")[0] for name in inside} - {"", "PKG-INFO", "setup.cfg"}
    assert tops == {*FILES, *SCRIPTS, "conf", "src"}
    assert not any(name.startswith("conf/local") for name in inside)


def test_the_wheel_has_a_console_command_and_its_version(built, installed, tmp_path):
    (entries,) = (name for name in built.wheel.namelist() if name.endswith("/entry_points.txt"))
    assert "diffprobe = diffprobe.commands.console:main" in built.wheel.read(entries).decode()
    assert diffprobe(installed, tmp_path, "--version").stdout == "diffprobe 0.1.0\n"


def test_installed_it_composes_its_own_configurations_and_the_user_s(installed, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    done = diffprobe(installed, tmp_path, "train", "experiment=mine", "--info", "searchpath")
    assert done.returncode == 0, done.stderr
    paths = [str(path) in done.stdout for path in (tmp_path / "conf", installed / "diffprobe" / "conf", ROOT / "conf")]
    assert paths == [True, True, False]
    done = diffprobe(installed, tmp_path, "train", "experiment=mine", "--cfg", "job")
    assert "\nseed: 7\n" in f"\n{done.stdout}", done.stderr

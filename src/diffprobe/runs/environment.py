"""environment.json: what a run was made with, so that it can be made again.

How to make a run again: its command, and what it was made with.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffprobe.files import write_text

PACKAGES = (
    "diffprobe",
    "torch",
    "lightning",
    "torchmetrics",
    "diffusers",
    "transformers",
    "accelerate",
    "safetensors",
    "hydra-core",
    "omegaconf",
    "numpy",
    "scipy",
    "pillow",
    "matplotlib",
    "rich",
    "wandb",
)


def environment(
    *,
    seeds: Mapping[str, int],
    wall_seconds: float,
    network_evaluations: int,
    source: Path = Path(__file__),
) -> dict[str, Any]:
    """Versions, platform, hardware and git revision, beside what the run says of itself. Plain JSON values.

    Args:
        seeds: what each seed is for -> the seed.
        wall_seconds: how long the run took.
        network_evaluations: images x steps x networks the denoiser was evaluated on.
        source: file or folder whose git checkout is asked for its revision.
    """
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "hardware": hardware(),
        "git": git_state(source),
        "command": sys.argv,
        "seeds": dict(seeds),
        "wall_seconds": wall_seconds,
        "network_evaluations": network_evaluations,
    }


def write_environment(path: Path, **known: Any) -> dict[str, Any]:
    """Writes `environment(**known)` as JSON, in one move, and returns it."""
    record = environment(**known)
    write_text(Path(path), json.dumps(record, indent=2) + "\n")
    return record


def hardware() -> dict[str, Any]:
    """CPU model, CPUs this process may use, torch's threads, and every GPU's name."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        gpus.append("Apple MPS")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_name(), "cpus": usable, "torch_threads": torch.get_num_threads(), "gpus": gpus}


def git_state(source: Path) -> dict[str, Any] | None:
    """Revision and whether tracked or new files differ from it; None where `source` is in no commit of a checkout.

    An installed copy may lie inside somebody else's checkout (a virtual environment in a project): that revision would
    say nothing about this code, so the file itself must be tracked.
    """
    folder = source if source.is_dir() else source.parent
    revision = _git(folder, "rev-parse", "HEAD")
    if revision is None or not _git(folder, "ls-files", str(source.resolve())):
        return None
    return {"revision": revision, "dirty": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command, None where it fails or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def reproduce(folder: Path, seeds: Mapping[str, int], script: str | None = None) -> list[tuple[str, str]]:
    """(what, answer): the command with the overrides that the run folder records, revision, seeds and versions.

    Args:
        script: by default the one that is running.
    """
    script = script or Path(sys.argv[0]).name
    made = environment(seeds=seeds, wall_seconds=0.0, network_evaluations=0)  # the last two are not told
    versions = [f"{name} {version}" for name, version in made["packages"].items() if version]
    machine = made["hardware"]
    return [
        ("command", shlex.join(["python", script, *_overrides(folder)])),
        ("revision", _revision(made["git"])),
        ("seeds", ", ".join(f"{name} {value}" for name, value in seeds.items())),
        ("versions", ", ".join([f"Python {made['python']}", *versions])),
        ("hardware", ", ".join([machine["cpu"], f"{machine['cpus']} CPUs", *machine["gpus"]])),
        ("run folder", folder.resolve().name),
    ]


def _overrides(folder: Path) -> list[str]:
    """What was typed, but for Hydra's own settings; where the user's own configurations lie belongs to it."""
    import yaml

    def recorded(name: str) -> Any:
        path = folder / ".hydra" / name
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None

    of_hydra = ((recorded("hydra.yaml") or {}).get("overrides") or {}).get("hydra") or []
    return [*(each for each in of_hydra if each.startswith("hydra.searchpath=")), *(recorded("overrides.yaml") or [])]


def _revision(git: Mapping[str, Any] | None) -> str:
    if git is None:
        return "not from a git checkout; see the version of diffprobe"
    return f"git {git['revision']}" + " with changes that are in no commit" * git["dirty"]

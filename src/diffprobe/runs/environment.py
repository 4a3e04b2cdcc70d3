"""What a run was made with (environment.json), and how to make it again."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffprobe.terminal import script_command

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


def environment(*, seeds: Mapping[str, int], wall_seconds: float, network_evaluations: int) -> dict[str, Any]:
    """Versions, platform, hardware, git revision and the given numbers, as plain JSON values.

    Args:
        seeds: what each seed is for -> the seed.
        network_evaluations: images x steps x networks the denoiser was evaluated on.
    """
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _versions(),
        "hardware": hardware(),
        "git": git_state(),
        "command": sys.argv,
        "seeds": dict(seeds),
        "wall_seconds": wall_seconds,
        "network_evaluations": network_evaluations,
    }


def reproduce(
    folder: Path, overrides: Sequence[str], seeds: Mapping[str, int], script: str | None = None
) -> list[tuple[str, str]]:
    """(what, answer): the command with its overrides, revision, seeds, versions and hardware.

    Args:
        script: 'train' or 'analyze'; by default the one that is running.
    """
    machine, git = hardware(), git_state()
    revision = "not from a git checkout; see the version of diffprobe"
    if git is not None:
        revision = f"git {git['revision']}" + " with changes that are in no commit" * git["dirty"]
    versions = [f"{name} {version}" for name, version in _versions().items() if version]
    return [
        ("command", shlex.join([*script_command(script), *overrides])),
        ("revision", revision),
        ("seeds", ", ".join(f"{name} {value}" for name, value in seeds.items())),
        ("versions", ", ".join([f"Python {platform.python_version()}", *versions])),
        ("hardware", ", ".join([machine["cpu"], f"{machine['cpus']} CPUs", *machine["gpus"]])),
        ("run folder", folder.resolve().name),
    ]


def hardware() -> dict[str, Any]:
    """CPU model, CPUs this process may use, torch's threads, and every GPU's name."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        gpus.append("Apple MPS")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    return {"cpu": cpu, "cpus": usable, "torch_threads": torch.get_num_threads(), "gpus": gpus}


def git_state(source: Path = Path(__file__)) -> dict[str, Any] | None:
    """Revision and whether tracked or new files differ from it; None where `source` is in no commit of a checkout.

    `source` itself must be tracked: code installed inside somebody else's checkout is not of that revision.
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


def _versions() -> dict[str, str | None]:
    """The version of each package; None of those that are not installed."""
    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions

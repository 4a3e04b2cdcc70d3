"""How to make a run again: its command, and what it was made with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffprobe.report.environment import environment


def reproduce(folder: Path, seeds: Mapping[str, int], script: str | None = None) -> list[tuple[str, str]]:
    """(what, answer): the command with the overrides that the run folder records, revision, seeds and versions.

    Args:
        script: the door; by default the script that is running.
    """
    door = script or Path(sys.argv[0]).name
    made = environment(seeds=seeds, wall_seconds=0.0, network_evaluations=0)  # the last two are not told
    versions = [f"{name} {version}" for name, version in made["packages"].items() if version]
    machine = made["hardware"]
    return [
        ("command", shlex.join(["python", door, *_overrides(folder)])),
        ("revision", _revision(made["git"])),
        ("seeds", ", ".join(f"{name} {value}" for name, value in seeds.items())),
        ("versions", ", ".join([f"Python {made['python']}", *versions])),
        ("hardware", ", ".join([machine["cpu"], f"{machine['cpus']} CPUs", *machine["gpus"]])),
        ("run folder", folder.resolve().name),
    ]


def _overrides(folder: Path) -> list[str]:
    import yaml

    recorded = folder / ".hydra" / "overrides.yaml"
    return list(yaml.safe_load(recorded.read_text(encoding="utf-8")) or []) if recorded.exists() else []


def _revision(git: Mapping[str, Any] | None) -> str:
    if git is None:
        return "not from a git checkout; see the version of diffprobe"
    return f"git {git['revision']}" + " with changes that are in no commit" * git["dirty"]

"""Imports run one way: read from the source, those within functions and for type checking included."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

SOURCE = Path(__file__).parents[1] / "src"
# From the lowest to the highest. What is in one row does not import each other, but for its own package.
LEVELS = (
    ("errors",),
    ("ranges", "signatures", "precision", "terminal", "threads", "heap", "files"),
    ("signals", "parts", "weights", "user_files"),
    ("fitting",),
    ("statistics",),
    ("pocket", "backbone"),
    ("properties",),
    ("data", "labels"),
    ("activations",),
    ("probes", "prototypes"),
    ("report",),
    ("runs",),
    ("analyses",),
    ("cli",),
    ("api",),
    ("app", "try_labels"),
    ("commands",),
)
SHARED_BY_ANALYSES = ("analysis", "inputs", "objects", "trained_probes")
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


@cache
def modules() -> dict[str, Path]:
    found = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in found.items()}


@cache
def imports() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports anywhere in it."""
    return {name: set(_imported(path)) - {name} for name, path in modules().items()}


def _imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module in modules():
            for item in node.names:
                inner = f"{node.module}.{item.name}"
                yield inner if inner in modules() else node.module


def part(module: str) -> str:
    """'diffprobe.probes.bank' -> 'probes'."""
    return module.split(".")[1]


def test_every_part_of_the_package_has_a_level():
    assert {part(name) for name in modules() if "." in name} == set(LEVEL)


@pytest.mark.parametrize("name", sorted(LEVEL, key=LEVEL.__getitem__))
def test_imports_run_downward(name: str):
    upward = sorted(
        f"{module} imports {other}"
        for module, others in imports().items()
        if "." in module and part(module) == name
        for other in others
        if part(other) != name
        and LEVEL[part(other)] >= LEVEL[name]
        and not (name == "labels" and part(other) == "data")
    )
    assert not upward


def analysis_of(module: str) -> str:
    """'diffprobe.analyses.probing.report' -> 'probing'; '' of what is no analysis' own."""
    parts = module.split(".")
    own = parts[:2] == ["diffprobe", "analyses"] and len(parts) > 2 and parts[2] not in SHARED_BY_ANALYSES
    return parts[2] if own else ""


def test_no_analysis_imports_another():
    of_another = sorted(
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if analysis_of(module) and analysis_of(other) not in ("", analysis_of(module))
    )
    assert not of_another


def circles() -> list[list[str]]:
    """Sets of modules that import each other, directly or by way of others."""
    names = sorted(modules())
    edges = np.array([[other in imports()[name] for other in names] for name in names])
    labels = connected_components(edges, connection="strong")[1]
    groups = [[name for name, label in zip(names, labels, strict=True) if label == at] for at in set(labels)]
    return [group for group in groups if len(group) > 1]


def test_there_is_no_circle():
    assert not circles()

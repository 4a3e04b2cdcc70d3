"""Prototypes in a run folder: one safetensors file an input, its rows in the order of objects.csv."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from diffprobe.features.store.temporary import temporary_beside
from diffprobe.prototypes.collecting import Prototypes


def save_prototypes(prototypes: Prototypes, folder: Path) -> list[Path]:
    """Writes `<folder>/<input>.safetensors` with `step_<k>` -> [objects, channels], float32, for every input.

    Rows of objects that have vanished at the input's resolution are NaN.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for group in prototypes.inputs:
        path = folder / f"{group.name}.safetensors"
        temporary = temporary_beside(path)
        try:
            save_file({f"step_{step}": prototypes.matrix(group, step) for step in prototypes.steps}, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        paths.append(path)
    return paths

"""Bytes on disk, told before the work."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from diffprobe.errors import UserError
from diffprobe.features.store.folder import Store
from diffprobe.features.store.layout import extra_name, header_bytes, header_fields, tensor_name

ROOM = 0.98  # share of the free disk that a store may take


@dataclass(frozen=True)
class StorePlan:
    """Bytes of a store on disk: of every layer and extra, of all its files, and of those still to be written."""

    layers: dict[str, int]
    extras: dict[str, int]
    total: int
    remaining: int


def plan_store(store: Store) -> StorePlan:
    """The plan of a store that exists, or that `find_store` has thought of. Writes nothing."""
    manifest, images = store.manifest, len(store.manifest.images)
    sizes = {name: images * spec.row_bytes for name, spec in store.specs.items()}
    steps = manifest.steps
    row_bytes = sum(spec.row_bytes for spec in store.specs.values())
    files = {
        shard: len(header_bytes(header_fields(manifest, store.specs, shard.rows, {}))) + len(shard.rows) * row_bytes
        for shard in store.shards
    }
    return StorePlan(
        layers={layer.name: sum(sizes[tensor_name(layer.name, step)] for step in steps) for layer in manifest.layers},
        extras={
            extra.name: sum(sizes[extra_name(extra.name, step)] for step in (steps if extra.every_step else [None]))
            for extra in manifest.extras
        },
        total=sum(files.values()),
        remaining=sum(files[shard] for shard in store.survey().unfinished),
    )


def check_disk(plan: StorePlan, folder: Path) -> None:
    """Refuses a store whose remaining shards do not fit the disk that `folder` is, or will be, on.

    Raises:
        UserError: with the bytes needed and free, and the largest layer.
    """
    free = free_disk(folder, "the store's folder")
    if plan.remaining > ROOM * free:
        largest = max(plan.layers, key=lambda layer: plan.layers[layer])
        raise UserError(
            f"the store in {folder} needs {in_units(plan.remaining)} more, of {in_units(plan.total)} in all, and "
            f"{in_units(free)} are free there; choose another folder, fewer layers (the largest, {largest}, takes "
            f"{in_units(plan.layers[largest])}), steps or images, or a narrower dtype"
        )


def free_disk(folder: Path, called: str) -> int:
    """Free bytes of the disk that `folder` is, or will be, on.

    Raises:
        UserError: it cannot be made, since it is below a file, or it is on no disk.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"{called} {folder}: {there} is a file, not a folder")
    usage = shutil.disk_usage(there)
    if not usage.total:
        raise UserError(f"{called} {folder} is on no disk ({there}); choose another")
    return usage.free


def in_units(size: float) -> str:
    """Bytes in the largest fitting unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"

"""What a run will cost, told before the work: network evaluations and bytes of activations.

Bytes on disk, told before the work.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from diffprobe.activations.description import describe_control_inputs, describe_replay, manifest_folder
from diffprobe.activations.store.folder import Store, find_store
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.shards import extra_name, header_bytes, header_fields, tensor_name, tensor_specs
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError

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


STORES = ("memory", "disk", "none")
HEADROOM = 0.8  # share of the free memory that activations may take


@dataclass(frozen=True)
class Plan:
    """Costs of a pass over all images, and of one more for each control network.

    Attributes:
        images: number of images.
        evaluations: of the denoiser, each on a guidance batch of two where guided, that are still to be done.
        layers: bytes of activations by layer.
        bytes: of everything that is kept, all passes together.
        remaining: of these, the bytes that no finished shard holds.
        folders: the stores, of the pass and of each control; none in memory.
        where: what is said of the place where there are no folders.
    """

    images: int
    evaluations: int
    layers: dict[str, int]
    bytes: int
    remaining: int
    folders: list[Path]
    where: str = "kept in memory"

    def lines(self) -> list[str]:
        """The plan for people: totals first, then every layer, then where it goes."""
        table = [f"  {in_units(size):>8}  {layer}" for layer, size in self.layers.items()]
        where = [f"store {folder}" for folder in self.folders] or [self.where]
        return [
            f"{self.images} images, {self.evaluations} network evaluations, {in_units(self.bytes)} to keep, "
            f"{in_units(self.remaining)} of it still to be made",
            *table,
            *where,
        ]


def plan_run(
    manifest: Manifest,
    per_image: int,
    controls: Sequence[Mapping[str, Any]],
    replayed: int,
    inputs: Sequence[Layer] = (),
) -> Plan:
    """The plan in memory.

    Args:
        manifest: of the extraction.
        per_image: evaluations of each image.
        controls: what each replayed control is called, see `describe_replay`.
        replayed: evaluations of each image by a control.
        inputs: control inputs that are kept too, see `control_layers`.
    """
    images, layers, total = len(manifest.images), dict[str, int](), 0
    for each in _manifests(manifest, controls, inputs):
        specs = tensor_specs(each)
        total += images * sum(spec.row_bytes for spec in specs.values())
        for name in (layer.name for layer in each.layers):
            layers[name] = layers.get(name, 0) + images * sum(
                specs[tensor_name(name, step)].row_bytes for step in each.steps
            )
    return Plan(images, images * (per_image + replayed * len(controls)), layers, total, total, [])


def plan_live(
    manifest: Manifest, per_image: int, controls: Sequence[Mapping[str, Any]], replayed: int, batch_size: int
) -> Plan:
    """The plan when nothing is kept: as `plan_run`, with the bytes that are held at a time.

    These are the sums of the closed form, steps x channels^2 numbers a layer for each network, and the activations of
    one batch of images, of two networks if there is a control network.
    """
    images, steps, networks = len(manifest.images), len(manifest.steps), 1 + len(controls)
    held = {
        layer.name: steps * 8 * layer.channels**2 * networks
        + steps * 4 * layer.channels * layer.height * layer.width * batch_size * min(networks, 2)
        for layer in manifest.layers
    }
    total = sum(held.values())
    evaluations = images * (per_image + replayed * len(controls))
    return Plan(images, evaluations, held, total, total, [], "held at a time; no activation is kept")


def plan_stores(
    manifest: Manifest,
    per_image: int,
    controls: Sequence[Mapping[str, Any]],
    replayed: int,
    stores: Path,
    inputs: Sequence[Layer] = (),
) -> Plan:
    """The plan on disk, counting what is there already.

    Raises:
        UserError: the disk cannot take the rest.
    """
    manifests = _manifests(manifest, controls, inputs)
    found = [find_store(stores / manifest_folder(each), each) for each in manifests]
    plans = [plan_store(store) for store in found]
    missing = [sum(len(shard.rows) for shard in store.survey().unfinished) for store in found]
    together = StorePlan(
        layers=dict(sum((Counter(plan.layers) for plan in plans), Counter())),
        extras=plans[0].extras,
        total=sum(plan.total for plan in plans),
        remaining=sum(plan.remaining for plan in plans),
    )
    check_disk(together, stores)
    return Plan(
        images=len(manifest.images),
        evaluations=missing[0] * per_image + sum(missing[1 : 1 + len(controls)]) * replayed,
        layers=together.layers,
        bytes=together.total,
        remaining=together.remaining,
        folders=[store.folder for store in found],
    )


def _manifests(manifest: Manifest, controls: Sequence[Mapping[str, Any]], inputs: Sequence[Layer]) -> list[Manifest]:
    """Of everything that is kept: the network's activations, its controls', and the control inputs."""
    replayed = [describe_replay(manifest, called) for called in controls]
    return [manifest, *replayed, *([describe_control_inputs(manifest, inputs)] if inputs else [])]


def check_memory(plan: Plan) -> None:
    """Refuses a plan that does not fit into the free memory.

    Raises:
        UserError: with the bytes needed and free.
    """
    free = psutil.virtual_memory().available
    if plan.bytes > HEADROOM * free:
        raise UserError(
            f"the activations of {plan.images} images need {in_units(plan.bytes)} of memory, of which "
            f"{in_units(free)} are free; choose features=disk, fewer layers, steps or images (data.count)"
        )

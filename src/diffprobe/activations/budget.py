"""The costs of a run, known before it starts: network evaluations, and bytes of activations in memory and on disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from diffprobe.activations.store.folder import Store, find_store
from diffprobe.activations.store.manifest import Manifest, describe_control_inputs, describe_replay, manifest_folder
from diffprobe.activations.store.shards import extra_name, header_bytes, header_fields, tensor_name, tensor_specs
from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError

DISK_SHARE = 0.98  # of the free disk that stores may take
MEMORY_SHARE = 0.8  # of the free memory that activations may take


@dataclass(frozen=True)
class StorePlan:
    """Bytes of a store on disk: of each layer and extra, of all its files, and of those that are not written yet."""

    layers: dict[str, int]
    extras: dict[str, int]
    total: int
    remaining: int


def plan_store(store: Store) -> StorePlan:
    """The plan of a store, which need not exist (see `find_store`). Writes nothing."""
    manifest, specs, steps = store.manifest, store.specs, store.manifest.steps
    sizes = {name: len(manifest.images) * spec.row_bytes for name, spec in specs.items()}
    row_bytes = sum(spec.row_bytes for spec in specs.values())
    files = {
        shard: len(header_bytes(header_fields(manifest, specs, shard.rows, {}))) + len(shard.rows) * row_bytes
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


@dataclass(frozen=True)
class Plan:
    """Costs of a pass over all images, and of one more for each control network.

    Attributes:
        evaluations: of the denoiser, each on a guidance batch of two where guided, that are still to be done.
        layers: bytes of activations by layer.
        bytes: of everything that is kept, all passes together.
        remaining: of these, the bytes that no finished shard holds.
        folders: the stores, of the pass and of each control; none in memory.
        where: in words, where activations go without stores.
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
        controls: what determines each control network, see `describe_replay`.
        replayed: evaluations of each image by a control network.
        inputs: control inputs that are kept too, see `control_layers`.
    """
    images, layers, total = len(manifest.images), Counter[str](), 0
    for each in _manifests(manifest, controls, inputs):
        specs = tensor_specs(each)
        total += images * sum(spec.row_bytes for spec in specs.values())
        for layer in each.layers:
            layers[layer.name] += images * sum(specs[tensor_name(layer.name, step)].row_bytes for step in each.steps)
    return Plan(images, images * (per_image + replayed * len(controls)), dict(layers), total, total, [])


def plan_live(
    manifest: Manifest, per_image: int, controls: Sequence[Mapping[str, Any]], replayed: int, batch_size: int
) -> Plan:
    """The plan when no activation is kept: as `plan_run`, with the bytes that are held at a time.

    These are the sums of ridge probes, steps x channels^2 numbers a layer for each network, and the activations of one
    batch of images, of two networks if there is a control network.
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
    """The plan on disk, less what is stored already.

    Raises:
        UserError: the disk cannot take the rest.
    """
    found = [find_store(stores / manifest_folder(each), each) for each in _manifests(manifest, controls, inputs)]
    plans = [plan_store(store) for store in found]
    missing = [sum(len(shard.rows) for shard in store.survey().unfinished) for store in found]
    plan = Plan(
        images=len(manifest.images),
        evaluations=missing[0] * per_image + sum(missing[1 : 1 + len(controls)]) * replayed,
        layers=dict(sum((Counter(plan.layers) for plan in plans), Counter())),
        bytes=sum(plan.total for plan in plans),
        remaining=sum(plan.remaining for plan in plans),
        folders=[store.folder for store in found],
    )
    check_disk(plan, stores)
    return plan


def _manifests(manifest: Manifest, controls: Sequence[Mapping[str, Any]], inputs: Sequence[Layer]) -> list[Manifest]:
    """Of everything that is kept: the network's activations, its controls', and the control inputs."""
    replayed = [describe_replay(manifest, control) for control in controls]
    return [manifest, *replayed, *([describe_control_inputs(manifest, inputs)] if inputs else [])]


def check_memory(plan: Plan) -> None:
    """Raises UserError, with the bytes needed and free, for a plan that does not fit into the free memory."""
    free = psutil.virtual_memory().available
    if plan.bytes > MEMORY_SHARE * free:
        raise UserError(
            f"the activations of {plan.images} images need {in_units(plan.bytes)} of memory, of which "
            f"{in_units(free)} are free; choose features=disk, fewer layers, steps or images (data.count)"
        )


def check_disk(plan: Plan, folder: Path) -> None:
    """Raises UserError, with the largest layer, for stores whose remaining shards do not fit the disk of `folder`."""
    free = free_disk(folder, "the store's folder")
    if plan.remaining > DISK_SHARE * free:
        largest = max(plan.layers, key=lambda layer: plan.layers[layer])
        raise UserError(
            f"the store in {folder} needs {in_units(plan.remaining)} more, of {in_units(plan.bytes)} in all, and "
            f"{in_units(free)} are free there; choose another folder, fewer layers (the largest, {largest}, takes "
            f"{in_units(plan.layers[largest])}), steps or images, or a narrower dtype"
        )


def free_disk(folder: Path, name: str) -> int:
    """Free bytes of the disk that `folder` is, or will be, on.

    Raises:
        UserError: the folder cannot be made, since it is below a file, or it is on no disk.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"{name} {folder}: {there} is a file, not a folder")
    usage = shutil.disk_usage(there)
    if not usage.total:
        raise UserError(f"{name} {folder} is on no disk ({there}); choose another")
    return usage.free


def in_units(size: float) -> str:
    """Bytes in the largest fitting unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"

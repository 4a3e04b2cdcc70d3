"""What a run will cost, told before the work: network evaluations and bytes of activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from diffprobe.backbone.layers import Layer
from diffprobe.errors import UserError
from diffprobe.features.description import describe_control_inputs, describe_replay, manifest_folder
from diffprobe.features.store.folder import find_store
from diffprobe.features.store.layout import tensor_name, tensor_specs
from diffprobe.features.store.manifest import Manifest
from diffprobe.features.store.plan import StorePlan, check_disk, in_units, plan_store

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

"""Prototypes of objects, pooled while the frozen network looks at their images; activations are never kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import lightning
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffprobe.activations.activations import LayerGroup, resize_activation
from diffprobe.activations.extraction import Log
from diffprobe.activations.module import ActivationModule, Consumer, ImageBatch, ImageData, quiet_trainer, run_pass
from diffprobe.activations.sources import Source
from diffprobe.activations.store.folder import store_lock
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.data.objects import ObjectImages
from diffprobe.errors import UserError
from diffprobe.files import temporary_beside
from diffprobe.prototypes.pooling import MaskResizing, masked_means, resize_masks
from diffprobe.prototypes.separation import ObjectRow
from diffprobe.prototypes.store import PrototypeCache, PrototypeKey, cache_folder


@dataclass(frozen=True)
class Prototypes:
    """The prototypes of all objects at every input and step, read from disk when they are asked for.

    Attributes:
        objects: in the order of all rows of prototypes.
        images: the row of each object's image among the images, [objects].
        inputs: layers and groups of them.
        steps, timesteps: of the source.
        evaluations: how often the network was evaluated for them; what was kept before needed none.
    """

    objects: list[ObjectRow]
    images: np.ndarray
    inputs: list[LayerGroup]
    steps: list[int]
    timesteps: list[float]
    cache: PrototypeCache
    evaluations: int

    def matrix(self, group: LayerGroup, step: int) -> Tensor:
        """[objects, channels], float32; rows of NaN for objects that have vanished at the resolution of the input.

        Raises:
            UserError: a prototype that has not vanished holds NaN or infinity.
        """
        return torch.cat([self._read(unit) for unit in prototype_keys(group, self.timestep(step))], 1)

    def _read(self, unit: PrototypeKey) -> Tensor:
        values = self.cache.read(unit)
        broken = (~values.isfinite().all(1) & ~values.isnan().all(1)).nonzero()[:, 0].tolist()
        if broken:
            raise UserError(
                f"{self.cache.folder}: the prototype of object {self.objects[broken[0]].object!r} at {unit.name} is "
                f"infinite or not a number, as are {len(broken)} in all; delete that folder, and they will be computed "
                "again"
            )
        return values

    def timestep(self, step: int) -> float:
        """The scheduler's t of a step."""
        return self.timesteps[self.steps.index(step)]

    @cached_property
    def vanished(self) -> dict[tuple[int, int], list[str]]:
        """By grid (height, width), the names of objects that no cell of it belongs to."""
        found = {}
        for group in self.inputs:
            unit = prototype_keys(group, self.timesteps[0])[0]
            if unit.grid not in found:
                gone = self.cache.read(unit).isnan().any(1).tolist()
                found[unit.grid] = [row.object for row, lost in zip(self.objects, gone, strict=True) if lost]
        return found


def prototype_keys(group: LayerGroup, timestep: float) -> list[PrototypeKey]:
    """What an input's prototypes are put together of."""
    grid = (group.layer.height, group.layer.width)
    return [PrototypeKey(layer.name, grid, timestep) for layer in group.layers]


def check_timesteps(source: Source, backbone: Backbone, steps: Sequence[int]) -> None:
    """Raises UserError for steps that share their timestep with another: prototypes are kept by timestep.

    Samplers with noise levels of their own (Karras', say) round timesteps, so that neighbours may be equal.
    """
    there = source.timesteps(backbone)
    for step in steps:
        equal = [other for other, timestep in there.items() if timestep == there[step] and other != step]
        if equal:
            raise UserError(
                f"steps {step} and {equal[0]} are both at timestep {there[step]:g}, by which prototypes are kept: take "
                "other steps (steps.select), fewer of them (steps.sampling), or another model.scheduler"
            )


def as_group(layer: Layer) -> LayerGroup:
    """A layer as an input of its own."""
    return LayerGroup(layer.name, (layer,))


def object_rows(images: ObjectImages) -> list[ObjectRow]:
    """The objects of all images, in their order."""
    return [
        ObjectRow(
            each.name,
            name,
            each.label,
            each.area,
            images.kind,
            images.sequences[row],
            images.frames[row],
            each.instance,
        )
        for row, name in enumerate(images.names)
        for each in images.objects(row)
    ]


def collect_prototypes(
    backbone: Backbone,
    source: Source,
    images: ObjectImages,
    inputs: Sequence[LayerGroup],
    steps: Sequence[int],
    *,
    resizing: MaskResizing,
    folder: Path,
    extra_inputs: Sequence[LayerGroup] = (),
    batch_size: int = 8,
    images_per_shard: int = 64,
    trainer: lightning.Trainer | None = None,
    log: Log = lambda line: None,
) -> Prototypes:
    """Shows every image to the network once and pools the activations over its objects.

    Prototypes that the folder has are not computed again; an interrupted pass goes on at its last shard. Devices share
    the shards; other processes that want the same images wait for each other.

    Args:
        source: shows the network these `images`, row by row.
        extra_inputs: inputs that are pooled in the same pass, for other jobs; they are not in what is returned.

    Raises:
        UserError: steps that the source does not have, or of one timestep, or a folder that cannot be written.
    """
    trainer = trainer or quiet_trainer(backbone.device)
    check_timesteps(source, backbone, steps)
    there = source.timesteps(backbone)
    units = list(
        dict.fromkeys(
            unit for group in (*inputs, *extra_inputs) for at in steps for unit in prototype_keys(group, there[at])
        )
    )
    records = [
        {**images.record(row), "objects": [each.name for each in images.objects(row)]}
        for row in range(len(images.names))
    ]
    place, fingerprint = cache_folder(folder, backbone, source, records, resizing)
    kept = PrototypeCache(place, fingerprint, len(images.names), images_per_shard)
    evaluations = 0
    # The first of several processes waits for all of its run
    with store_lock(kept.folder, log) if trainer.global_rank == 0 else nullcontext():
        pooling = PrototypePooling(backbone, source, kept, units, resizing)
        for path, why in kept.damaged.items():
            log(f"damaged, and computed again: {path} ({why})")
        data = ImageData(
            partial(source.batch, size=backbone.image_size),
            kept.shards,
            batch_size,
            unfinished=[shard.start for shard in kept.shards if pooling.lacking[shard]],
            masks=images.masks,
        )
        share = data.share(trainer.global_rank, trainer.world_size)
        if share or trainer.world_size > 1:
            run_pass(ActivationModule(backbone, pooling.run, pooling, steps=pooling.most_steps), data, trainer)
            trainer.strategy.barrier("prototypes kept")
            own = torch.tensor(pooling.evaluations(share), device=trainer.strategy.root_device)
            evaluations = int(trainer.strategy.reduce(own, reduce_op="sum"))
    places = [row for row in range(len(images.names)) for _ in images.objects(row)]
    return Prototypes(
        object_rows(images), np.array(places), list(inputs), list(steps), [there[at] for at in steps], kept, evaluations
    )


class PrototypePooling(Consumer):
    """Pools what the shards of images lack, and writes a shard when its last image is done."""

    def __init__(
        self,
        backbone: Backbone,
        source: Source,
        kept: PrototypeCache,
        units: Sequence[PrototypeKey],
        resizing: MaskResizing,
    ) -> None:
        self.backbone, self.source, self.kept, self.resizing = backbone, source, kept, resizing
        self.timesteps = source.timesteps(backbone)
        self.shard_of = {row: shard for shard in kept.shards for row in shard}
        self.lacking = {shard: kept.missing(shard, units) for shard in kept.shards}
        self.weights: dict[tuple[int, int], list[Tensor]] = {}  # by grid, of the objects of each image of the batch
        self.pooled: dict[PrototypeKey, list[Tensor]] = defaultdict(list)  # of the batches of a shard

    @property
    def most_steps(self) -> int:
        """The most steps that images of any shard are taken through."""
        return max(self.source.steps_taken(self.backbone, self._steps(shard)) for shard in self.lacking)

    def evaluations(self, shards: Sequence[Sequence[int]]) -> int:
        """How often the network is evaluated for all that some shards lack."""
        found = ((rows, self._steps(self.shard_of[rows[0]])) for rows in shards)
        return sum(len(rows) * self.source.evaluations(self.backbone, steps) for rows, steps in found)

    def run(self, batch: ImageBatch) -> Iterator[TrajectoryStep]:
        """Takes images of one shard through the steps that it lacks."""
        shard = self.shard_of[batch.rows[0]]
        units = self.lacking[shard]
        assert batch.masks is not None
        self.weights = {
            grid: [resize_masks(each, grid, self.resizing) for each in batch.masks]
            for grid in {unit.grid for unit in units}
        }
        layers = list(dict.fromkeys(unit.layer for unit in units))
        return self.source.run(self.backbone, batch, layers, self._steps(shard))

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        timestep = self.timesteps[step.index]
        for unit in self.lacking[self.shard_of[batch.rows[0]]]:
            if unit.timestep == timestep:
                values = resize_activation(step.activations[unit.layer], unit.grid)
                means = [masked_means(one, own) for one, own in zip(values, self.weights[unit.grid], strict=True)]
                self.pooled[unit].append(torch.cat(means).cpu())

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        shard = self.shard_of[batch.rows[0]]
        if batch.rows[-1] == shard[-1]:
            self.kept.write(shard, {unit: torch.cat(parts) for unit, parts in self.pooled.items()})
            self.pooled.clear()

    def _steps(self, shard: range) -> list[int]:
        """The steps at which a shard lacks something."""
        wanted = {unit.timestep for unit in self.lacking[shard]}
        return sorted(step for step, at in self.timesteps.items() if at in wanted)


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

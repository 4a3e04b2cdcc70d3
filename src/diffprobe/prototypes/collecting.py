"""Prototypes of objects, pooled from activations during one pass of the frozen network, and distances between them."""

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
from diffprobe.data.objects import AnnotatedObject, ObjectImages
from diffprobe.errors import UserError
from diffprobe.files import Step, replacing
from diffprobe.prototypes.distances import DistanceConfig, distance_matrix
from diffprobe.prototypes.pooling import MaskResizing, masked_means, resize_masks
from diffprobe.prototypes.sets import DistanceMatrix
from diffprobe.prototypes.store import PrototypeCache, PrototypeKey, cache_folder


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """objects.csv: an object with a prototype. `area` is its share of the image's pixels."""

    object: str
    image: str
    label: str
    area: float
    dataset: str
    sequence: str
    frame: int
    instance: int


@dataclass(frozen=True, slots=True)
class DistanceKey:
    """What distances are between: the first columns of every table of distances."""

    model: str
    layer: str
    step: Step
    timestep: float | None
    measure: str


@dataclass(frozen=True)
class PrototypeDistances:
    """Distances between the objects that have a prototype at one layer group and step, by one measure.

    Attributes:
        rows: their places among all objects, [n], in the order of the matrix.
        prototypes: [n, channels].
    """

    key: DistanceKey
    group: LayerGroup
    rows: np.ndarray
    prototypes: Tensor
    matrix: DistanceMatrix


@dataclass(frozen=True)
class Prototypes:
    """The prototypes of all objects for every layer group and step, read from disk when they are used.

    Attributes:
        objects: in the order of the rows of prototypes.
        images: the row of each object's image among the images, [objects].
        timesteps: step -> its timestep.
        evaluations: how often the network was evaluated for them; cached prototypes need none.
    """

    objects: list[ObjectRow]
    images: np.ndarray
    inputs: list[LayerGroup]
    timesteps: dict[int, float]
    cache: PrototypeCache
    evaluations: int

    def matrix(self, group: LayerGroup, step: int) -> Tensor:
        """[objects, channels], float32; rows of NaN for objects that have vanished at the group's resolution.

        Raises:
            UserError: the prototype of another object holds NaN or infinity.
        """
        parts = []
        for key in prototype_keys(group, self.timesteps[step]):
            values = self.cache.read(key)
            broken = (~values.isfinite().all(1) & ~values.isnan().all(1)).nonzero()[:, 0].tolist()
            if broken:
                raise UserError(
                    f"{self.cache.folder}: the prototype of object {self.objects[broken[0]].object!r} at {key.name} "
                    f"is infinite or not a number, as are {len(broken)} in all; delete that folder, and they will be "
                    "computed again"
                )
            parts.append(values)
        return torch.cat(parts, 1)

    @cached_property
    def vanished(self) -> dict[tuple[int, int], list[str]]:
        """By grid (height, width), the names of objects whose mask covers no cell of it."""
        timestep = next(iter(self.timesteps.values()))
        found: dict[tuple[int, int], list[str]] = {}
        for key in (prototype_keys(group, timestep)[0] for group in self.inputs):
            if key.grid not in found:
                vanished = self.cache.read(key).isnan().any(1).nonzero()[:, 0]
                found[key.grid] = [self.objects[at].object for at in vanished]
        return found

    def distances(self, model: str, config: DistanceConfig) -> Iterator[PrototypeDistances]:
        """The distances for every layer group, step and measure, without objects that have vanished there.

        Raises:
            UserError: fewer than two objects are left, or a measure is not defined for a prototype.
        """
        classes = np.unique([row.label for row in self.objects], return_inverse=True)[1]
        for group in self.inputs:
            for step, timestep in self.timesteps.items():
                values = self.matrix(group, step)
                rows = np.flatnonzero(values.isfinite().all(1).numpy())
                if len(rows) < 2:
                    raise UserError(
                        f"{len(rows)} of {len(values)} objects have a prototype at {group.name} "
                        f"({group.layer.height}x{group.layer.width}): at least 2 are needed; use masks=soft, finer "
                        "layers or more objects"
                    )
                values = values[rows]
                for measure in config.names:
                    key = DistanceKey(model, group.name, step, timestep, measure)
                    matrix = DistanceMatrix(
                        distance_matrix(values, measure, precision=config.dtype, budget=config.budget),
                        classes[rows],
                        self.images[rows],
                    )
                    yield PrototypeDistances(key, group, rows, values, matrix)


def prototype_keys(group: LayerGroup, timestep: float) -> list[PrototypeKey]:
    """The cached parts of a group's prototypes: one for each of its layers."""
    grid = (group.layer.height, group.layer.width)
    return [PrototypeKey(layer.name, grid, timestep) for layer in group.layers]


def check_timesteps(source: Source, backbone: Backbone, steps: Sequence[int]) -> None:
    """Raises UserError for steps that share their timestep with another, since prototypes are cached by timestep.

    Samplers with noise levels of their own, such as Karras', round timesteps, so that neighbours may be equal.
    """
    timesteps = source.timesteps(backbone)
    for step in steps:
        equal = [other for other, timestep in timesteps.items() if timestep == timesteps[step] and other != step]
        if equal:
            raise UserError(
                f"steps {step} and {equal[0]} are both at timestep {timesteps[step]:g}, by which prototypes are kept: "
                "take other steps (steps.select), fewer of them (steps.sampling), or another model.scheduler"
            )


def as_group(layer: Layer) -> LayerGroup:
    """A layer as a group of its own."""
    return LayerGroup(layer.name, (layer,))


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
        source: of these images, row by row.
        extra_inputs: pooled in the same pass for other runs, and not returned.

    Raises:
        UserError: steps that the source does not have, or of one timestep, or a folder that cannot be written.
    """
    trainer = trainer or quiet_trainer(backbone.device)
    check_timesteps(source, backbone, steps)
    timesteps = source.timesteps(backbone)
    groups = (*inputs, *extra_inputs)
    keys = dict.fromkeys(key for group in groups for at in steps for key in prototype_keys(group, timesteps[at]))
    annotated = [(row, each) for row in range(len(images)) for each in images.objects(row)]
    records = [
        {**images.record(row), "objects": [each.name for each in images.objects(row)]} for row in range(len(images))
    ]
    cache = PrototypeCache(*cache_folder(folder, backbone, source, records, resizing), len(images), images_per_shard)
    evaluations = 0
    # The first of several processes waits for all of its run
    with store_lock(cache.folder, log) if trainer.global_rank == 0 else nullcontext():
        pooling = PrototypePooling(backbone, source, cache, list(keys), resizing)
        for path, why in cache.damaged.items():
            log(f"damaged, and computed again: {path} ({why})")
        data = ImageData(
            partial(source.batch, size=backbone.image_size),
            cache.shards,
            batch_size,
            unfinished=[shard.start for shard in cache.shards if pooling.missing[shard]],
            masks=images.masks,
        )
        share = data.share(trainer.global_rank, trainer.world_size)
        if share or trainer.world_size > 1:
            run_pass(ActivationModule(backbone, pooling.run, pooling, steps=pooling.most_steps), data, trainer)
            trainer.strategy.barrier("prototypes kept")
            own = torch.tensor(pooling.evaluations(share), device=trainer.strategy.root_device)
            evaluations = int(trainer.strategy.reduce(own, reduce_op="sum"))
    return Prototypes(
        [_object_row(images, *each) for each in annotated],
        np.array([row for row, _ in annotated]),
        list(inputs),
        {at: timesteps[at] for at in steps},
        cache,
        evaluations,
    )


def _object_row(images: ObjectImages, row: int, item: AnnotatedObject) -> ObjectRow:
    where = (images.kind, images.sequences[row], images.frames[row])
    return ObjectRow(item.name, images.names[row], item.label, item.area, *where, item.instance)


class PrototypePooling(Consumer):
    """Pools the prototypes that shards lack, and writes those of a shard after its last image.

    Attributes:
        missing: shard -> keys of prototypes.
    """

    def __init__(
        self,
        backbone: Backbone,
        source: Source,
        cache: PrototypeCache,
        keys: Sequence[PrototypeKey],
        resizing: MaskResizing,
    ) -> None:
        self.backbone, self.source, self.cache, self.resizing = backbone, source, cache, resizing
        self.timesteps = source.timesteps(backbone)
        self.shard_of = {row: shard for shard in cache.shards for row in shard}
        self.missing = {shard: cache.missing(shard, keys) for shard in cache.shards}
        self.weights: dict[tuple[int, int], list[Tensor]] = {}  # by grid, of the objects of each image of the batch
        self.pooled: dict[PrototypeKey, list[Tensor]] = defaultdict(list)  # of the batches of a shard

    @property
    def most_steps(self) -> int:
        """The most steps that images of any shard are taken through."""
        return max(self.source.steps_taken(self.backbone, self._steps(shard)) for shard in self.missing)

    def evaluations(self, shards: Sequence[Sequence[int]]) -> int:
        """How often the network is evaluated for all that some shards lack."""
        steps = [self._steps(self.shard_of[rows[0]]) for rows in shards]
        return sum(
            len(rows) * self.source.evaluations(self.backbone, own) for rows, own in zip(shards, steps, strict=True)
        )

    def run(self, batch: ImageBatch) -> Iterator[TrajectoryStep]:
        """Takes images of one shard through the steps that it lacks."""
        shard = self.shard_of[batch.rows[0]]
        assert batch.masks is not None
        self.weights = {
            grid: [resize_masks(each, grid, self.resizing) for each in batch.masks]
            for grid in {key.grid for key in self.missing[shard]}
        }
        layers = list(dict.fromkeys(key.layer for key in self.missing[shard]))
        return self.source.run(self.backbone, batch, layers, self._steps(shard))

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        timestep = self.timesteps[step.index]
        for key in self.missing[self.shard_of[batch.rows[0]]]:
            if key.timestep == timestep:
                values = resize_activation(step.activations[key.layer], key.grid)
                means = [masked_means(*pair) for pair in zip(values, self.weights[key.grid], strict=True)]
                self.pooled[key].append(torch.cat(means).cpu())

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        shard = self.shard_of[batch.rows[0]]
        if batch.rows[-1] == shard[-1]:
            self.cache.write(shard, {key: torch.cat(parts) for key, parts in self.pooled.items()})
            self.pooled.clear()

    def _steps(self, shard: range) -> list[int]:
        """The steps at which a shard lacks something."""
        wanted = {key.timestep for key in self.missing[shard]}
        return sorted(step for step, timestep in self.timesteps.items() if timestep in wanted)


def save_prototypes(prototypes: Prototypes, folder: Path) -> list[Path]:
    """Writes `<folder>/<layer group>.safetensors` with `step_<k>` -> [objects, channels], float32.

    Rows of objects that have vanished at the group's resolution are NaN.
    """
    paths = [folder / f"{group.name}.safetensors" for group in prototypes.inputs]
    for group, path in zip(prototypes.inputs, paths, strict=True):
        with replacing(path) as temporary:
            save_file({f"step_{step}": prototypes.matrix(group, step) for step in prototypes.timesteps}, temporary)
    return paths

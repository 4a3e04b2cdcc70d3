"""What analyses of objects share: validated inputs, prototypes of the images as they are and changed, and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.inputs import check_noise, chosen_groups, chosen_layers, source_of_pictures
from diffprobe.errors import UserError
from diffprobe.parts import class_name, make

if TYPE_CHECKING:
    from diffprobe.activations.activations import LayerGroup
    from diffprobe.activations.sources import Source
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.objects import ObjectImages, Problem
    from diffprobe.prototypes.collecting import Prototypes
    from diffprobe.prototypes.distances import DistanceConfig
    from diffprobe.prototypes.pooling import MaskResizing
    from diffprobe.prototypes.store import PrototypeConfig
    from diffprobe.report.report import Report, Table

LISTED_PROBLEMS = 5
TOPICS = ("analysis", "model", "objects", "layers", "steps", "measure", "seed")


@dataclass(frozen=True)
class Change:
    """A change of the images, its strength, and the source that shows them changed."""

    name: str
    strength: float
    source: Source
    images: ObjectImages


@dataclass(frozen=True)
class ObjectTask:
    """Validated inputs of an analysis of objects.

    Attributes:
        problems: what was left out of the images.
        inputs: layer groups whose prototypes are compared.
        extra_inputs: those that are pooled in the same pass for other runs.
    """

    backbone: Backbone
    images: ObjectImages
    problems: Sequence[Problem]
    source: Source
    inputs: Sequence[LayerGroup]
    extra_inputs: Sequence[LayerGroup]
    steps: list[int]
    distance_config: DistanceConfig
    resizing: MaskResizing
    cache: PrototypeConfig
    seed: int
    examples: int
    changes: Sequence[Change] = ()

    def changed(self, changes: Sequence[Change]) -> ObjectTask:
        """With changes of the images.

        Raises:
            UserError: images are compared at several steps, or a change needs more sampling steps than there are.
        """
        if len(self.steps) > 1:
            raise UserError(
                f"a change is compared at one step, not at {len(self.steps)}; choose it with steps.select=[STEP], or "
                "trajectory=clean"
            )
        for change in changes:
            change.source.description(self.backbone)
        return replace(self, changes=changes)


@dataclass(frozen=True)
class CollectedPrototypes:
    """Prototypes of the images as they are, and after each change of the task, in its order."""

    unchanged: Prototypes
    changed: Sequence[Prototypes]

    @property
    def evaluations(self) -> int:
        return sum(each.evaluations for each in (self.unchanged, *self.changed))


def check_objects(inputs: Inputs) -> ObjectTask:
    """Validated inputs without changes. Raises UserError for what the user got wrong."""
    from diffprobe.activations.budget import free_disk
    from diffprobe.prototypes.collecting import as_group, check_timesteps

    settings = inputs.settings
    distance_config, cache = make(settings.measure), make(settings.prototypes)
    inputs.log(f"reading {class_name(settings.objects).removeprefix('load_')}")
    images, problems = inputs.objects
    for problem in problems[:LISTED_PROBLEMS]:
        inputs.log(f"left out {problem}")
    if len(problems) > LISTED_PROBLEMS:
        inputs.log(f"left out {len(problems) - LISTED_PROBLEMS} more; problems.csv names all {len(problems)}")
    count = _count_objects(images)
    if count < 2:
        raise UserError(
            f"objects={images.kind}: {count} object in {len(images)} images, and distances are between at "
            "least 2; take more images (objects.count)"
        )
    free_disk(Path(cache.folder), "prototypes.folder")
    backbone = inputs.backbone
    source = source_of_pictures(settings, images, "conditional")
    check_noise(settings, backbone)
    steps = inputs.steps(source.timesteps(backbone))
    check_timesteps(source, backbone, steps)
    extra_layers = chosen_layers(cache.layers, backbone) if cache.layers else []
    return ObjectTask(
        backbone,
        images,
        problems,
        source,
        [*map(as_group, inputs.layers), *inputs.groups],
        [*map(as_group, extra_layers), *chosen_groups(cache.groups, backbone)],
        steps,
        distance_config,
        make(settings.masks),
        cache,
        settings.seed,
        settings.report.examples,
    )


def _count_objects(images: ObjectImages) -> int:
    return sum(len(images.objects(row)) for row in range(len(images)))


class ObjectAnalysis:
    """The plan and the run of every analysis of objects."""

    distributed: ClassVar[bool] = True

    def plan(self, task: ObjectTask) -> Plan:
        """Evaluations of the network, and bytes of prototypes."""
        objects = _count_objects(task.images)
        sources = [task.source, *(change.source for change in task.changes)]
        evaluations = sum(source.evaluations(task.backbone, task.steps) for source in sources)
        channels = sum(group.layer.channels for group in (*task.inputs, *task.extra_inputs))
        numbers = objects * channels * len(task.steps) * len(sources)
        line = (
            f"{task.backbone.name} on {task.backbone.device}: {objects} objects in {len(task.images)} images, "
            f"{len(task.inputs)} inputs, {len(task.steps)} steps, {', '.join(task.distance_config.names)}; "
            f"{len(task.images) * evaluations} network evaluations at most, {4 * numbers / 1e6:.1f} MB of prototypes"
        )
        return Plan([line])

    def run(self, task: ObjectTask, context: RunContext) -> CollectedPrototypes:
        """The prototypes of the images as they are, and after every change."""
        from diffprobe.prototypes.collecting import collect_prototypes

        def collect(source: Source, images: ObjectImages) -> Prototypes:
            return collect_prototypes(
                task.backbone,
                source,
                images,
                task.inputs,
                task.steps,
                resizing=task.resizing,
                folder=Path(task.cache.folder),
                extra_inputs=task.extra_inputs,
                batch_size=task.cache.batch_size,
                images_per_shard=task.cache.images_per_shard,
                trainer=context.trainer("prototypes"),
                log=context.log,
            )

        unchanged = collect(task.source, task.images)
        changed = []
        for change in task.changes:
            context.log(f"{change.name} {change.strength:g}")
            changed.append(collect(change.source, change.images))
        return CollectedPrototypes(unchanged, changed)


def object_report(
    kind: str, task: ObjectTask, result: CollectedPrototypes, tables: Mapping[str, Table], **parts: Any
) -> Report:
    """A report with the prototypes and the tables of objects, vanished objects and problems.

    Args:
        kind: of analysis, for the title.
        tables: of this analysis.
        parts: more arguments of `Report`.
    """
    from pandas import DataFrame

    from diffprobe.data.objects import Problem
    from diffprobe.prototypes.collecting import ObjectRow, save_prototypes
    from diffprobe.report.report import Report, Table

    changed = [(each, change.name, change.strength) for each, change in zip(result.changed, task.changes, strict=True)]
    vanished = [
        (name, *grid, change, strength)
        for prototypes, change, strength in [(result.unchanged, "", None), *changed]
        for grid, names in prototypes.vanished.items()
        for name in names
    ]
    columns = {"object": str, "height": int, "width": int, "change": str, "strength": float}
    vanished = DataFrame(vanished, columns=list(columns)).astype(columns)
    return Report(
        title=f"Objects in {task.backbone.name}: {kind}",
        topics=TOPICS,
        tables={
            "objects": Table.of(ObjectRow, result.unchanged.objects),
            "vanished": Table(vanished, title="objects that no cell of a grid belongs to"),
            "problems": Table.of(Problem, task.problems, title="what was left out of the images"),
            **tables,
        },
        artifacts={"prototypes": partial(save_prototypes, result.unchanged)},
        evaluations=result.evaluations,
        **parts,
    )

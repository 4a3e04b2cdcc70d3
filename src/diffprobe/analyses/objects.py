"""What analyses of objects share: their validated inputs, and the prototypes of images as they are and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.inputs import check_noise, chosen_groups, chosen_layers, source_of_pictures
from diffprobe.errors import UserError
from diffprobe.parts import make

if TYPE_CHECKING:
    from diffprobe.activations.activations import LayerGroup
    from diffprobe.activations.sources import Source
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.objects import ObjectImages, Problem
    from diffprobe.prototypes.collecting import Prototypes
    from diffprobe.prototypes.matrices import DistanceConfig
    from diffprobe.prototypes.pooling import MaskResizing
    from diffprobe.report.report import Table

LISTED_PROBLEMS = 5
TOPICS = ("analysis", "model", "objects", "layers", "steps", "measure", "seed")  # that reports tell of what was asked


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
        inputs: layers and groups of them whose prototypes are compared.
        extra_inputs: those that are pooled in the same pass for other runs.
        folder: where prototypes are kept.
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
    folder: Path
    batch_size: int
    images_per_shard: int
    seed: int
    examples: int
    changes: Sequence[Change] = ()

    def changed(self, changes: Sequence[Change]) -> ObjectTask:
        """With changes of the images.

        Raises:
            UserError: images are compared at several steps, or a change asks for sampling that there is not.
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
        """How often the network was evaluated for them."""
        return sum(each.evaluations for each in (self.unchanged, *self.changed))


def check_objects(inputs: Inputs) -> ObjectTask:
    """Validated inputs without changes. Raises UserError for what the user got wrong."""
    from diffprobe.activations.budget import free_disk
    from diffprobe.prototypes.collecting import as_group, check_timesteps

    settings = inputs.settings
    distance_config = make(settings.measure)
    inputs.log(f"reading {settings.objects.kind}")
    images, problems = inputs.objects
    _list_problems(problems, inputs)
    count = sum(len(images.objects(row)) for row in range(len(images)))
    if count < 2:
        raise UserError(
            f"objects={settings.objects.kind}: {count} object in {len(images)} images, and distances are between at "
            "least 2; take more images (objects.count)"
        )
    keeping = make(settings.prototypes)
    free_disk(Path(keeping.folder), "prototypes.folder")
    backbone = inputs.backbone
    source = source_of_pictures(settings, images, "conditional")
    check_noise(settings, backbone)
    steps = inputs.steps(source.timesteps(backbone))
    check_timesteps(source, backbone, steps)
    groups = [*map(as_group, inputs.layers), *inputs.groups]
    also = [as_group(layer) for layer in chosen_layers(keeping.layers, backbone)] if keeping.layers else []
    return ObjectTask(
        backbone,
        images,
        problems,
        source,
        groups,
        [*also, *chosen_groups(keeping.groups, backbone)],
        steps,
        distance_config,
        make(settings.masks),
        Path(keeping.folder),
        keeping.batch_size,
        keeping.images_per_shard,
        settings.seed,
        settings.report.examples,
    )


class ObjectAnalysis:
    """The plan and the work of every analysis of objects."""

    distributed: ClassVar[bool] = True

    def plan(self, task: ObjectTask) -> Plan:
        """Evaluations of the network, and bytes of prototypes."""
        objects = sum(len(task.images.objects(row)) for row in range(len(task.images)))
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
        unchanged = _collect(task, task.source, task.images, context)
        changed = []
        for change in task.changes:
            context.log(f"{change.name} {change.strength:g}")
            changed.append(_collect(task, change.source, change.images, context))
        return CollectedPrototypes(unchanged, changed)


def _collect(task: ObjectTask, source: Source, images: ObjectImages, context: RunContext) -> Prototypes:
    from diffprobe.prototypes.collecting import collect_prototypes

    return collect_prototypes(
        task.backbone,
        source,
        images,
        task.inputs,
        task.steps,
        resizing=task.resizing,
        folder=task.folder,
        extra_inputs=task.extra_inputs,
        batch_size=task.batch_size,
        images_per_shard=task.images_per_shard,
        trainer=context.trainer("prototypes"),
        log=context.log,
    )


def _list_problems(problems: Sequence[Problem], inputs: Inputs) -> None:
    for problem in problems[:LISTED_PROBLEMS]:
        inputs.log(f"left out {problem}")
    if len(problems) > LISTED_PROBLEMS:
        inputs.log(f"left out {len(problems) - LISTED_PROBLEMS} more; problems.csv names all {len(problems)}")


def object_tables(
    prototypes: Prototypes,
    problems: Sequence[Problem] = (),
    changed: Sequence[tuple[Prototypes, str, float | None]] = (),
) -> dict[str, Table]:
    """The tables objects, vanished and problems.

    Args:
        prototypes: of the images as they are.
        problems: images and objects that were left out.
        changed: prototypes after a change of the images, its name and its strength.
    """
    from diffprobe.data.objects import Problem
    from diffprobe.prototypes.separation import ObjectRow, VanishedRow
    from diffprobe.report.report import Table

    vanished = [
        VanishedRow(name, height, width, change, strength)
        for each, change, strength in [(prototypes, "", None), *changed]
        for (height, width), names in each.vanished.items()
        for name in names
    ]
    return {
        "objects": Table.of(ObjectRow, prototypes.objects),
        "vanished": Table.of(VanishedRow, vanished, title="objects that no cell of a grid belongs to"),
        "problems": Table.of(Problem, problems, title="what was left out of the images"),
    }

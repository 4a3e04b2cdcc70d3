"""The analyses of objects: `analyze.py`'s configuration to a run folder with tables, figures and a tracked run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.analyses.inputs import chosen_steps
from diffprobe.cli.analysis_schema import AnalysisJobSettings, check_analysis
from diffprobe.cli.errors import job_errors
from diffprobe.cli.running import Run, analysis_name, carry_out
from diffprobe.errors import UserError
from diffprobe.ranges import Number
from diffprobe.runs.trainers import make_predicting_trainer

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.activations.groups import LayerGroup
    from diffprobe.activations.sources.source import Source
    from diffprobe.analyses.drift.drift import Changed
    from diffprobe.analyses.separation.separation import Measuring
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.objects import ObjectImages, Problem
    from diffprobe.prototypes.collecting import Prototypes
    from diffprobe.prototypes.separation import Resampling
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class Separation:
    """Whether objects of one class are near each other inside the network, and those of one image.

    Attributes:
        resamples: images are left out in at most so many parts, for intervals.
        permutations: of class labels, for p; the fewest are those with which p can be 0.05.
    """

    resamples: Annotated[int, Number(19, 100_000)] = 1000
    permutations: Annotated[int, Number(19, 100_000)] = 1000


@job_errors
def run(config: DictConfig) -> None:
    """Runs the analysis that `config` asks for, see `carry_out`."""
    carry_out(config, check_analysis, prepare, _work, share=_share)


def _share(task: Task, settings: AnalysisJobSettings, console: Console) -> None:
    task.collect_all()


def _work(task: Task, run: Run[AnalysisJobSettings]) -> int:
    from diffprobe.report.publish import publish

    publish(task.study(), run)
    return task.evaluations


@dataclass
class Task:
    """What is left once everything the user gave has been checked against everything else."""

    settings: AnalysisJobSettings
    console: Console
    backbone: Backbone
    images: ObjectImages
    problems: list[Problem]
    source: Source
    inputs: list[LayerGroup]
    also: list[LayerGroup]
    steps: list[int]
    measuring: Measuring
    resampling: Resampling
    evaluations: int = 0

    def collect(self, source: Source, images: ObjectImages, steps: list[int]) -> Prototypes:
        """The prototypes of images that a source shows to the network."""
        from diffprobe.prototypes.collecting import collect_prototypes
        from diffprobe.prototypes.pooling import MaskResizing

        keeping, masks = self.settings.prototypes, self.settings.masks
        found = collect_prototypes(
            self.backbone,
            source,
            images,
            self.inputs,
            steps,
            resizing=MaskResizing(masks.hard, masks.antialias),
            folder=Path(keeping.folder),
            also=self.also,
            batch_size=keeping.batch_size,
            images_per_shard=keeping.images_per_shard,
            trainer=make_predicting_trainer(self.settings.trainer),
            tell=self.tell,
        )
        self.evaluations += found.evaluations
        return found

    def collect_all(self) -> tuple[Prototypes, list[Changed]]:
        """The prototypes that the analysis needs: of the images as they are, and after every change, seen alike."""
        from diffprobe.analyses.drift.drift import Changed

        unchanged = self.collect(self.source, self.images, self.steps)
        changed = []
        for name, strength, source, images in self._changes():
            self.tell(f"{name} {strength:g}")
            changed.append(Changed(name, strength, self.collect(source, images, self.steps), self.steps[-1]))
        return unchanged, changed

    def study(self) -> Report:
        """What the analysis found. Raises UserError as the studies do."""
        from diffprobe.analyses.drift import report as drift
        from diffprobe.analyses.drift.drift import study_drift
        from diffprobe.analyses.drift.video import study_video

        prototypes, changed = self.collect_all()
        what = (self.backbone.name, self.measuring)
        analysis = self.settings.analysis
        kind = analysis_name(self.settings)
        title = f"Objects in {self.backbone.name}: {kind}"
        if kind == "separation":
            return self._separation(title, prototypes)
        if kind == "video":
            rows = study_video(prototypes, list(analysis.gaps), *what, tell=self.tell)
        else:
            rows = study_drift(prototypes, changed, *what, self.resampling, tell=self.tell)
        return drift.report(title, rows, prototypes, changed, self.problems)

    def _separation(self, title: str, prototypes: Prototypes) -> Report:
        from diffprobe.analyses.separation.report import is_stable_diffusion_1, report, retrieval_examples
        from diffprobe.analyses.separation.separation import study_separation

        found = study_separation(prototypes, self.backbone.name, self.measuring, self.resampling, tell=self.tell)
        count, size = self.settings.report.examples, self.backbone.image_size
        return report(
            title,
            found,
            prototypes,
            self.problems,
            dataset=self.images.kind,
            published=is_stable_diffusion_1(self.backbone.denoiser),
            examples=retrieval_examples(found.nearest, self.images, size, count) if found.nearest else (),
            layers=[group.layer for group in self.inputs],
        )

    def tell(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def _changes(self) -> Iterator[tuple[str, float, Source, ObjectImages]]:
        """Name, strength, source and images of every change that the analysis makes."""
        from diffprobe.activations.sources.real_images import DenoisedAgain
        from diffprobe.analyses.inputs import source_of_pictures
        from diffprobe.data.image_changes import ChangedImages

        settings, analysis = self.settings, self.settings.analysis

        def denoised(again: DenoisedAgain) -> Source:
            return source_of_pictures(settings, self.images, "conditional", again)

        kind = analysis_name(settings)
        if kind == "transforms":
            for name, strengths in analysis.changes.items():
                for strength in strengths:
                    images = ChangedImages(self.images, name, float(strength))
                    yield name, float(strength), source_of_pictures(settings, images, "conditional"), images
        if kind == "denoising":
            for strength in analysis.strengths:
                yield "strength", strength, denoised(DenoisedAgain(strength, settings.steps.sampling)), self.images
            for sampling in analysis.sampling_steps:
                again = DenoisedAgain(analysis.strength, sampling)
                yield "denoising_steps", again.evaluations, denoised(again), self.images


def prepare(settings: AnalysisJobSettings, console: Console) -> Task:
    """Checks all input and tells the plan.

    Raises:
        UserError: for anything the user got wrong, before any work is done.
    """
    from diffprobe.activations.budget import free_disk
    from diffprobe.analyses.inputs import check_noise, chosen_groups, chosen_layers, source_of_pictures
    from diffprobe.backbone.load import load_backbone
    from diffprobe.data.object_selection import load_objects
    from diffprobe.prototypes.collecting import check_timesteps, single
    from diffprobe.prototypes.separation import Resampling

    _check_analysis(settings)
    measuring = _measuring(settings)
    console.print(f"reading {settings.objects.kind}")
    tell = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    chosen: dict[str, Any] = OmegaConf.to_container(settings.objects)  # type: ignore[assignment]
    images, problems = load_objects(**chosen, seed=settings.seed, tell=tell)
    for problem in problems[:SHOWN_PROBLEMS]:
        tell(f"left out {problem}")
    if len(problems) > SHOWN_PROBLEMS:
        tell(f"left out {len(problems) - SHOWN_PROBLEMS} more; problems.csv names all {len(problems)}")
    _check_objects(settings, images)
    free_disk(Path(settings.prototypes.folder), "prototypes.folder")
    backbone = load_backbone(**settings.model)  # type: ignore[arg-type]
    source = source_of_pictures(settings, images, "conditional")
    check_noise(settings, backbone)
    steps = chosen_steps(settings.steps.select, source.timesteps(backbone))
    check_timesteps(source, backbone, steps)
    kind = analysis_name(settings)
    if kind in ("transforms", "denoising") and len(steps) > 1:
        raise UserError(
            f"analysis={kind} compares with images at one step, not at {len(steps)}; choose it with "
            "steps.select=[STEP], or trajectory=clean"
        )
    layers = chosen_layers(settings.layers.select, backbone) if settings.layers.select else []
    inputs = [*map(single, layers), *chosen_groups(settings.layers.groups, backbone)]
    if not inputs:
        raise UserError("layers.select and layers.groups are both empty; choose at least one layer or group of layers")
    kept = settings.prototypes
    also = [
        *(map(single, chosen_layers(kept.layers, backbone)) if kept.layers else ()),
        *chosen_groups(kept.groups, backbone),
    ]
    drawn = {name: settings.analysis[name] for name in ("resamples", "permutations") if name in settings.analysis}
    resampling = Resampling(**drawn, seed=settings.seed)
    task = Task(settings, console, backbone, images, problems, source, inputs, also, steps, measuring, resampling)
    _tell_plan(task)
    return task


SHOWN_PROBLEMS = 5


def _check_analysis(settings: AnalysisJobSettings) -> None:
    from diffprobe.data.image_changes import check_strength

    analysis = settings.analysis
    for key in ("changes", "strengths", "sampling_steps", "gaps"):
        if key in analysis and not analysis[key]:
            raise UserError(f"analysis.{key} is empty; give at least one")
    for name, strengths in analysis.get("changes", {}).items():
        for strength in strengths:
            check_strength(name, strength, f"analysis.changes.{name}: ")


def _check_objects(settings: AnalysisJobSettings, images: ObjectImages) -> None:
    """Raises UserError for objects that the analysis cannot hold against one another."""
    count = sum(len(images.objects(row)) for row in range(len(images)))
    if count < 2:
        raise UserError(
            f"objects={settings.objects.kind}: {count} object in {len(images)} images, and distances are between at "
            "least 2; take more images (objects.count)"
        )
    if analysis_name(settings) != "video":
        return
    if not any(images.sequences):
        raise UserError("analysis=video needs videos: choose objects=davis or objects=moving_scenes")
    by_video: dict[str, list[int]] = {}
    for video, frame in zip(images.sequences, images.frames, strict=True):
        by_video.setdefault(video, []).append(frame)
    longest = max(max(frames) - min(frames) for frames in by_video.values())
    if min(settings.analysis.gaps) > longest:
        raise UserError(
            f"analysis.gaps={list(settings.analysis.gaps)}: the longest video goes on for {longest} frames after its "
            "first; choose smaller gaps"
        )


def _measuring(settings: AnalysisJobSettings) -> Measuring:
    import torch

    from diffprobe.analyses.separation.separation import Measuring
    from diffprobe.prototypes.distances import MEASURES

    measure = settings.measure
    unknown = [name for name in measure.names if name not in MEASURES]
    if unknown or not measure.names:
        raise UserError(f"measure.names={list(measure.names)}: choose among {', '.join(MEASURES)}")
    precisions = {"float32": torch.float32, "float64": torch.float64}
    if measure.precision not in precisions:
        raise UserError(f"measure.precision={measure.precision}: choose one of {', '.join(precisions)}")
    return Measuring(list(measure.names), precisions[measure.precision], measure.budget_mb * 2**20)


def _tell_plan(task: Task) -> None:
    objects = sum(len(task.images.objects(row)) for row in range(len(task.images)))
    changes = [source for _, _, source, _ in task._changes()]
    evaluations = task.source.evaluations(task.backbone, task.steps)
    for source in changes:
        source.description(task.backbone)  # raises UserError for steps of sampling that the sampler does not have
        evaluations += source.evaluations(task.backbone, task.steps)
    channels = sum(group.layer.channels for group in (*task.inputs, *task.also))
    numbers = objects * channels * len(task.steps) * (1 + len(changes))
    task.tell(
        f"{task.backbone.name} on {task.backbone.device}: {objects} objects in {len(task.images)} images, "
        f"{len(task.inputs)} inputs, {len(task.steps)} steps, {', '.join(task.measuring.measures)}; "
        f"{len(task.images) * evaluations} network evaluations at most, {4 * numbers / 1e6:.1f} MB of prototypes"
    )

"""How far objects move inside the network: when their image is changed, denoised again, or goes on as a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from diffprobe.analyses.inputs import source_of_pictures
from diffprobe.analyses.objects import Change, ObjectAnalysis, check_objects
from diffprobe.errors import UserError
from diffprobe.ranges import Count, Items, Keys, Number, Share

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.objects import CollectedPrototypes, ObjectTask
    from diffprobe.data.objects import ObjectImages
    from diffprobe.report.report import Report

CHANGES = ("rotation", "flip", "scale", "padding", "crop", "shift")
Draws = Annotated[int, Number(19, 100_000)]


@dataclass(frozen=True)
class Transforms(ObjectAnalysis):
    """How far an object moves when its image is changed, beside how far apart other objects are.

    Attributes:
        changes: strengths of each change, see `diffprobe.data.image_changes`.
        resamples, permutations: see `Separation`.
    """

    changes: Annotated[Mapping[str, Annotated[list[float], Items()]], Keys(*CHANGES, called="change")]
    resamples: Draws = 1000
    permutations: Draws = 1000

    def check(self, inputs: Inputs) -> ObjectTask:
        from diffprobe.data.image_changes import ChangedImages, check_strength

        _check_given(self.changes, "changes")
        for name, strengths in self.changes.items():
            for strength in strengths:
                check_strength(name, strength, f"analysis.changes.{name}: ")
        task = check_objects(inputs)

        def changed(name: str, strength: float) -> Change:
            images = ChangedImages(task.images, name, strength)
            return Change(name, strength, source_of_pictures(inputs.settings, images, "conditional"), images)

        pairs = [(name, float(each)) for name, strengths in self.changes.items() for each in strengths]
        return task.changed([changed(*pair) for pair in pairs])

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        return _report_changes("transforms", task, result, context, self.resamples, self.permutations)


@dataclass(frozen=True)
class Denoising(ObjectAnalysis):
    """How far an object moves when its image is noised and denoised again.

    Attributes:
        strengths: shares of the trajectory that are taken.
        strength: the one that is taken at other numbers of steps, which are `sampling_steps`.
        resamples, permutations: see `Separation`.
    """

    strengths: Annotated[list[Share], Items()]
    sampling_steps: Annotated[list[Annotated[int, Number(1, 1000)]], Items()]
    strength: Share = 0.2
    resamples: Draws = 1000
    permutations: Draws = 1000

    def check(self, inputs: Inputs) -> ObjectTask:
        from diffprobe.activations.sources import PartialDenoising

        _check_given(self.strengths, "strengths")
        _check_given(self.sampling_steps, "sampling_steps")
        task = check_objects(inputs)

        def changed(name: str, strength: float | None, again: PartialDenoising) -> Change:
            source = source_of_pictures(inputs.settings, task.images, "conditional", again)
            return Change(name, again.evaluations if strength is None else strength, source, task.images)

        by_strength = [
            changed("strength", strength, PartialDenoising(strength, inputs.settings.steps.sampling))
            for strength in self.strengths
        ]
        by_steps = [
            changed("denoising_steps", None, PartialDenoising(self.strength, sampling))
            for sampling in self.sampling_steps
        ]
        return task.changed([*by_strength, *by_steps])

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        return _report_changes("denoising", task, result, context, self.resamples, self.permutations)


@dataclass(frozen=True)
class Video(ObjectAnalysis):
    """How far an object of a video moves from frame to frame.

    Attributes:
        gaps: in frames.
    """

    gaps: Annotated[list[Count], Items()] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])

    def check(self, inputs: Inputs) -> ObjectTask:
        _check_given(self.gaps, "gaps")
        task = check_objects(inputs)
        self._check_videos(task.images)
        return task

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        from diffprobe.analyses.drift.drift import study_video
        from diffprobe.analyses.drift.report import report

        model = task.backbone.name
        rows = study_video(result.unchanged, list(self.gaps), model, task.distance_config, log=context.log)
        made = report(f"Objects in {model}: video", rows, result.unchanged, problems=task.problems)
        return replace(made, evaluations=result.evaluations)

    def _check_videos(self, images: ObjectImages) -> None:
        if not any(images.sequences):
            raise UserError("analysis=video needs videos: choose objects=davis or objects=moving_scenes")
        by_video: dict[str, list[int]] = {}
        for video, frame in zip(images.sequences, images.frames, strict=True):
            by_video.setdefault(video, []).append(frame)
        longest = max(max(frames) - min(frames) for frames in by_video.values())
        if min(self.gaps) > longest:
            raise UserError(
                f"analysis.gaps={list(self.gaps)}: the longest video goes on for {longest} frames after its first; "
                "choose smaller gaps"
            )


def _check_given(values: Sequence[Any] | Mapping[str, Any], name: str) -> None:
    if not values:
        raise UserError(f"analysis.{name} is empty; give at least one")


def _report_changes(
    kind: str, task: ObjectTask, result: CollectedPrototypes, context: RunContext, resamples: int, permutations: int
) -> Report:
    """How far objects are from their changed selves."""
    from diffprobe.analyses.drift.drift import ChangedPrototypes, study_drift
    from diffprobe.analyses.drift.report import report
    from diffprobe.prototypes.separation import Resampling

    model = task.backbone.name
    changed = [
        ChangedPrototypes(change.name, change.strength, prototypes, task.steps[-1])
        for change, prototypes in zip(task.changes, result.changed, strict=True)
    ]
    resampling = Resampling(resamples, permutations, task.seed)
    rows = study_drift(result.unchanged, changed, model, task.distance_config, resampling, log=context.log)
    made = report(f"Objects in {model}: {kind}", rows, result.unchanged, changed, task.problems)
    return replace(made, evaluations=result.evaluations)

"""How far objects move inside the network: when their image is changed, denoised again, or goes on as a video."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from diffprobe.analyses.inputs import source_of_pictures
from diffprobe.analyses.objects import Change, ObjectAnalysis, check_objects
from diffprobe.errors import UserError
from diffprobe.ranges import Count, Items, Keys, Number, Share

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.objects import CollectedPrototypes, ObjectTask
    from diffprobe.report.report import Report

CHANGES = ("rotation", "flip", "scale", "padding", "crop", "shift")
Draws = Annotated[int, Number(19, 100_000)]


@dataclass(frozen=True, kw_only=True)
class ChangeAnalysis(ObjectAnalysis):
    """How far an object moves when its image is changed, beside how far apart other objects are.

    Attributes:
        resamples, permutations: see `Separation`.
    """

    resamples: Draws = 1000
    permutations: Draws = 1000

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        from diffprobe.analyses.drift.drift import study_drift
        from diffprobe.analyses.drift.report import report
        from diffprobe.prototypes.resampling import Resampling

        changed = list(zip(task.changes, result.changed, strict=True))
        resampling = Resampling(self.resamples, self.permutations, task.seed)
        model, config = task.backbone.name, task.distance_config
        rows = study_drift(result.unchanged, changed, model, config, resampling, log=context.log)
        return report(type(self).__name__.lower(), task, result, rows)


@dataclass(frozen=True, kw_only=True)
class Transforms(ChangeAnalysis):
    """Changes that keep what the image shows.

    Attributes:
        changes: strengths of each change, see `diffprobe.data.image_changes`.
    """

    changes: Annotated[Mapping[str, Annotated[list[float], Items()]], Keys(*CHANGES, noun="change")]

    def check(self, inputs: Inputs) -> ObjectTask:
        from diffprobe.data.image_changes import ChangedImages, check_strength

        _check_given(self.changes, "changes")
        pairs = [(name, strength) for name, strengths in self.changes.items() for strength in strengths]
        for name, strength in pairs:
            check_strength(name, strength, f"analysis.changes.{name}: ")
        task = check_objects(inputs)
        changes = []
        for name, strength in pairs:
            images = ChangedImages(task.images, name, float(strength))
            source = source_of_pictures(inputs.settings, images, "conditional")
            changes.append(Change(name, float(strength), source, images))
        return task.changed(changes)


@dataclass(frozen=True, kw_only=True)
class Denoising(ChangeAnalysis):
    """Images that are noised and denoised again.

    Attributes:
        strengths: shares of the trajectory that are taken.
        sampling_steps: other numbers of steps, at which `strength` is taken.
    """

    strengths: Annotated[list[Share], Items()]
    sampling_steps: Annotated[list[Annotated[int, Number(1, 1000)]], Items()]
    strength: Share = 0.2

    def check(self, inputs: Inputs) -> ObjectTask:
        from diffprobe.activations.sources import PartialDenoising

        _check_given(self.strengths, "strengths")
        _check_given(self.sampling_steps, "sampling_steps")
        task = check_objects(inputs)

        def change(name: str, again: PartialDenoising, strength: float) -> Change:
            source = source_of_pictures(inputs.settings, task.images, "conditional", again)
            return Change(name, strength, source, task.images)

        again = [PartialDenoising(strength, inputs.settings.steps.sampling) for strength in self.strengths]
        changes = [change("strength", each, each.strength) for each in again]
        again = [PartialDenoising(self.strength, sampling) for sampling in self.sampling_steps]
        return task.changed([*changes, *(change("denoising_steps", each, each.evaluations) for each in again)])


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
        if not any(task.images.sequences):
            raise UserError("analysis=video needs videos: choose objects=davis or objects=moving_scenes")
        by_video: dict[str, list[int]] = {}
        for video, frame in zip(task.images.sequences, task.images.frames, strict=True):
            by_video.setdefault(video, []).append(frame)
        longest = max(max(frames) - min(frames) for frames in by_video.values())
        if min(self.gaps) > longest:
            raise UserError(
                f"analysis.gaps={list(self.gaps)}: the longest video goes on for {longest} frames after its first; "
                "choose smaller gaps"
            )
        return task

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        from diffprobe.analyses.drift.drift import study_video
        from diffprobe.analyses.drift.report import report

        config = task.distance_config
        rows = study_video(result.unchanged, list(self.gaps), task.backbone.name, config, log=context.log)
        return report("video", task, result, rows)


def _check_given(values: Collection, name: str) -> None:
    if not values:
        raise UserError(f"analysis.{name} is empty; give at least one")

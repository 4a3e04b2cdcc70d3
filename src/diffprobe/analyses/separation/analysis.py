"""Whether objects of one class are near each other inside the network (Bonechi et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from diffprobe.analyses.objects import ObjectAnalysis, check_objects
from diffprobe.ranges import Number

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.objects import CollectedPrototypes, ObjectTask
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class Separation(ObjectAnalysis):
    """Whether objects of one class are near each other inside the network, and those of one image.

    Attributes:
        resamples: images are left out in at most so many parts, for intervals.
        permutations: of class labels, for p; with 19 it can be 0.05.
    """

    resamples: Annotated[int, Number(19, 100_000)] = 1000
    permutations: Annotated[int, Number(19, 100_000)] = 1000

    def check(self, inputs: Inputs) -> ObjectTask:
        return check_objects(inputs)

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        from diffprobe.analyses.separation.report import report
        from diffprobe.prototypes.resampling import Resampling
        from diffprobe.prototypes.separation import study_separation

        resampling = Resampling(self.resamples, self.permutations, task.seed)
        model, config = task.backbone.name, task.distance_config
        return report(task, result, study_separation(result.unchanged, model, config, resampling, log=context.log))

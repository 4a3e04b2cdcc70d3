"""Whether objects of one class are near each other inside the network (Bonechi et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        permutations: of class labels, for p; the fewest are those with which p can be 0.05.
    """

    resamples: Annotated[int, Number(19, 100_000)] = 1000
    permutations: Annotated[int, Number(19, 100_000)] = 1000

    def check(self, inputs: Inputs) -> ObjectTask:
        return check_objects(inputs)

    def report(self, task: ObjectTask, result: CollectedPrototypes, context: RunContext) -> Report:
        from diffprobe.analyses.separation.report import is_stable_diffusion_1, report, retrieval_examples
        from diffprobe.analyses.separation.tables import study_separation
        from diffprobe.prototypes.separation import Resampling

        model = task.backbone.name
        resampling = Resampling(self.resamples, self.permutations, task.seed)
        found = study_separation(result.unchanged, model, task.distance_config, resampling, log=context.log)
        near = found.nearest
        made = report(
            f"Objects in {model}: separation",
            found,
            result.unchanged,
            task.problems,
            dataset=task.images.kind,
            published=is_stable_diffusion_1(task.backbone.denoiser),
            examples=retrieval_examples(near, task.images, task.backbone.image_size, task.examples) if near else (),
            layers=[group.layer for group in task.inputs],
        )
        return replace(made, evaluations=result.evaluations)

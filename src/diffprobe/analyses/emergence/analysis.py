"""When probes find a property in the activations, and when an image model finds it in the unfinished picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.trained_probes import (
    ProbingTask,
    check_given,
    check_probing,
    plan_probing,
    train_probes,
)
from diffprobe.errors import UserError
from diffprobe.parts import class_name
from diffprobe.ranges import Folder, Items, Share

if TYPE_CHECKING:
    import pandas as pd

    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.emergence.image_models import ProbesUnderTest
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.trained_probes import LoadedProbes
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class EmergenceTask:
    """Validated inputs: those of probing, and the probes where they are given. `tested` are rows of its images."""

    probing: ProbingTask
    given: LoadedProbes | None
    tested: list[int]


@dataclass(frozen=True)
class Emergence:
    """When probes find a property in the activations, and when an image model finds it in the unfinished picture.

    Attributes:
        fractions: of the score at the last step; the first one is reported.
        probes: folder of a finished run of train.py whose probes are taken; None trains them first.
    """

    fractions: Annotated[list[Share], Items(1)]
    probes: Folder | None = None
    distributed: ClassVar[bool] = True

    def check(self, inputs: Inputs) -> EmergenceTask:
        from diffprobe.analyses.emergence.image_models import check_labeler

        settings = inputs.settings
        if class_name(settings.trajectory) != "generation":
            raise UserError(
                f"trajectory={class_name(settings.trajectory)}: analysis=emergence follows images while they are made, "
                "which is trajectory=generation"
            )
        if settings.features.store == "none":
            raise UserError("features=none keeps no latents to decode; choose features=memory or features=disk")
        if self.probes is None:
            probing, given = check_probing(inputs), None
            tested = list(probing.probing_config.split(probing.source.names).test)
        else:
            probing, given = check_given(self.probes, inputs)
            tested = list(range(len(probing.source.names)))
        names, probing_config = [probing.source.names[row] for row in tested], probing.probing_config
        size = inputs.backbone.image_size
        check_labeler(inputs.labeler, names, probing_config.steps, list(probing_config.items), size)
        return EmergenceTask(probing, given, tested)

    def plan(self, task: EmergenceTask) -> Plan:
        plan, steps = plan_probing(task.probing), len(task.probing.probing_config.steps)
        line = f"image models look at {len(task.tested)} test images after {steps} steps"
        if task.given is not None:
            line += f", which the probes of {self.probes} have not seen"
        return Plan([*plan.summary, line], plan.details)

    def run(self, task: EmergenceTask, context: RunContext) -> tuple[ProbesUnderTest, pd.DataFrame, int]:
        """The probes, trained here or given, their scores, and network evaluations."""
        from diffprobe.analyses.emergence.image_models import ProbesUnderTest

        if task.given is not None:
            return _score_given(task.probing, task.given, context)
        results, probing_config = train_probes(task.probing, context), task.probing.probing_config
        assert results.extraction is not None  # features=none has been refused
        assert results.targets is not None
        activations = probing_config.read(results.extraction.activations)
        rows, name = results.split.test, probing_config.probe_config.name
        probed = ProbesUnderTest(results.bank, results.extraction, activations, results.targets, rows, name)
        return probed, results.scores, results.evaluations

    def report(
        self, task: EmergenceTask, result: tuple[ProbesUnderTest, pd.DataFrame, int], context: RunContext
    ) -> Report:
        """Image models look at the same images; what they see is held against the probes."""
        from diffprobe.analyses.emergence.image_models import score_image_models
        from diffprobe.analyses.emergence.report import report
        from diffprobe.probes.score_table import concatenate

        probed, probe_scores, evaluations = result
        backbone, labeler = task.probing.inputs.backbone, task.probing.inputs.labeler
        context.log(f"labelling {len(probed.rows)} images as they look after each step")
        shown = task.probing.inputs.settings.report.examples
        scores, examples = score_image_models(backbone, labeler, probed, shown=shown)
        made = report(
            backbone.name,
            concatenate([probe_scores, scores]),
            probed.bank,
            examples,
            task.probing.source.captions,
            fractions=list(self.fractions),
            seed=context.seed,
        )
        return replace(made, evaluations=evaluations)


def _score_given(
    task: ProbingTask, given: LoadedProbes, context: RunContext
) -> tuple[ProbesUnderTest, pd.DataFrame, int]:
    from diffprobe.analyses.emergence.image_models import ProbesUnderTest
    from diffprobe.analyses.trained_probes import extract_unseen, score_probes
    from diffprobe.probes.score_table import concatenate

    extraction, targets, evaluations = extract_unseen(task, context)
    rows, model = range(len(task.source.names)), task.inputs.backbone.name
    probed = ProbesUnderTest(given.bank, extraction, extraction.activations, targets, rows, given.name)
    own = score_probes(given.bank, extraction.activations, targets, rows, model=model, probe=given.name)
    return probed, concatenate([given.validation, own]), evaluations

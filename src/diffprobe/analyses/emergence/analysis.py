"""When probes find a property in the activations, and when an image model finds it in the unfinished picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.trained_probes import ProbingTask, check_probing, plan_probing, task_of, train_probes
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
class ScoredProbes:
    """Probes with the images that they are tested on, their scores, and network evaluations."""

    probed: ProbesUnderTest
    scores: pd.DataFrame
    evaluations: int


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
            probing, given = _check_given(self.probes, inputs)
            tested = list(range(len(probing.source.names)))
        names, probing_config = [probing.source.names[row] for row in tested], probing.probing_config
        size = inputs.backbone.image_size
        check_labeler(inputs.labeler, names, probing_config.steps, probing_config.properties, size)
        return EmergenceTask(probing, given, tested)

    def plan(self, task: EmergenceTask) -> Plan:
        probing, probing_config = task.probing, task.probing.probing_config
        steps, plan = len(probing_config.steps), plan_probing(probing)
        summary = list(plan.summary)
        if task.given is not None:
            backbone = probing.inputs.backbone
            summary = [
                f"{backbone.name} on {backbone.device}: {len(probing.source.names)} images that the "
                f"probes of {self.probes} have not seen, {len(probing_config.layers)} layers, {steps} steps, "
                f"{', '.join(probing_config.properties)}; {probing.budget.evaluations} network evaluations"
            ]
        summary.append(f"image models look at {len(task.tested)} test images after {steps} steps")
        return Plan(summary, plan.details)

    def run(self, task: EmergenceTask, context: RunContext) -> ScoredProbes:
        """The probes, trained here or given, and their scores."""
        from diffprobe.analyses.emergence.image_models import ProbesUnderTest

        if task.given is not None:
            return _score_given(task.probing, task.given, context)
        found, probing_config = train_probes(task.probing, context), task.probing.probing_config
        assert found.extraction is not None  # features=none has been refused
        assert found.targets is not None
        activations = probing_config.read(found.extraction.activations)
        rows, name = found.split.test, probing_config.probe_config.name
        probed = ProbesUnderTest(found.bank, found.extraction, activations, found.targets, rows, name)
        return ScoredProbes(probed, found.scores, found.evaluations)

    def report(self, task: EmergenceTask, result: ScoredProbes, context: RunContext) -> Report:
        """Image models look at the same images; what they see is held against the probes."""
        from diffprobe.analyses.emergence.image_models import score_image_models
        from diffprobe.analyses.emergence.report import report
        from diffprobe.probes.score_table import concatenate

        probed, inputs = result.probed, task.probing.inputs
        context.log(f"labelling {len(probed.rows)} images as they look after each step")
        scores, examples = score_image_models(
            inputs.backbone, inputs.labeler, probed, shown=inputs.settings.report.examples
        )
        made = report(
            inputs.backbone.name,
            concatenate([result.scores, scores]),
            probed.bank,
            examples,
            task.probing.source.captions,
            fractions=list(self.fractions),
            seed=context.seed,
        )
        return replace(made, evaluations=result.evaluations)


def _check_given(folder: str, inputs: Inputs) -> tuple[ProbingTask, LoadedProbes]:
    """Layers, steps and properties are those of the given probes, images those that they have not seen."""
    from diffprobe.activations.sources import Generation
    from diffprobe.analyses.inputs import chosen_layers, chosen_steps
    from diffprobe.analyses.trained_probes import read_probes
    from diffprobe.probes.study.question import ProbingConfig

    if inputs.settings.control.names:
        raise UserError("analysis.probes gives trained probes, and controls would have to be trained: control=none")
    backbone, everything, given = inputs.backbone, inputs.source, read_probes(folder, inputs)
    assert isinstance(everything, Generation)  # other trajectories have been refused
    source = Generation(given.unseen(everything.prompts), everything.sampling_steps, everything.half)
    probing_config = ProbingConfig(
        chosen_layers(given.bank.layers, backbone),
        chosen_steps(given.bank.steps, source.timesteps(backbone)),
        properties=list(given.bank.properties),
        controls=[],
        seed=inputs.settings.seed,
    )
    inputs.labeler.check(source.names, probing_config.properties, backbone.image_size)
    return task_of(inputs, source, probing_config), given


def _score_given(task: ProbingTask, given: LoadedProbes, context: RunContext) -> ScoredProbes:
    from diffprobe.activations.extraction import extract
    from diffprobe.analyses.emergence.image_models import ProbesUnderTest, score_loaded_bank
    from diffprobe.probes.score_table import concatenate

    probing_config, source, inputs = task.probing_config, task.source, task.inputs
    context.log(f"running {len(source.names)} images through {len(probing_config.steps)} steps")
    extraction = extract(
        inputs.backbone,
        source,
        probing_config.recorded,
        probing_config.steps,
        batch_size=inputs.features.batch_size,
        dtype=inputs.features.dtype,
        stores=task.stores,
        images_per_shard=inputs.features.images_per_shard,
        trainer=context.trainer("generate"),
        log=context.log,
    )
    targets = inputs.labeler(extraction.images, source.names, probing_config.properties)
    probed = ProbesUnderTest(
        given.bank, extraction, extraction.activations, targets, range(len(source.names)), given.name
    )
    scores = concatenate([given.validation, score_loaded_bank(probed, inputs.backbone.name)])
    return ScoredProbes(probed, scores, extraction.computed * source.evaluations(inputs.backbone, probing_config.steps))

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


def _check_given(folder: str, inputs: Inputs) -> tuple[ProbingTask, LoadedProbes]:
    """Layers, steps and properties are those of the given probes, images those that they have not seen."""
    from diffprobe.activations.sources import Generation
    from diffprobe.analyses.inputs import chosen_layers, chosen_steps
    from diffprobe.analyses.trained_probes import read_probes
    from diffprobe.probes.study.study import ProbingConfig

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
    inputs.labeler.check(source.names, list(probing_config.items), backbone.image_size)
    return task_of(inputs, source, probing_config), given


def _score_given(
    task: ProbingTask, given: LoadedProbes, context: RunContext
) -> tuple[ProbesUnderTest, pd.DataFrame, int]:
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
    targets = inputs.labeler(extraction.images, source.names, list(probing_config.items))
    rows = range(len(source.names))
    probed = ProbesUnderTest(given.bank, extraction, extraction.activations, targets, rows, given.name)
    scores = concatenate([given.validation, score_loaded_bank(probed, inputs.backbone.name)])
    return probed, scores, extraction.computed * source.evaluations(inputs.backbone, probing_config.steps)

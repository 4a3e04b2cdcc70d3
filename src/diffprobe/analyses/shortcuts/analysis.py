"""What early knowledge is worth: from which step on a sampler can do less, and when the probes could read that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.shortcuts.ways import WAYS, available, begins, evaluations
from diffprobe.analyses.trained_probes import ProbingTask, check_given, check_probing, plan_probing, train_probes
from diffprobe.errors import UserError
from diffprobe.parts import class_name
from diffprobe.ranges import Choice, Folder, Items, Number, Share

if TYPE_CHECKING:
    import pandas as pd

    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.shortcuts.agreement import Distance
    from diffprobe.analyses.shortcuts.study import ShortcutResults
    from diffprobe.analyses.trained_probes import LoadedProbes
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers import Classifier
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class ShortcutsTask:
    """Validated inputs of the run.

    Attributes:
        given: the probes, where they are not trained.
        prompts: of the test images, which had no part in the probes.
        ways: names of the shortcuts.
        full_steps: after how many full steps they are begun.
        left_out: sentences on what was asked for and cannot be had.
    """

    probing: ProbingTask
    given: LoadedProbes | None
    prompts: list[Prompt]
    ways: list[str]
    full_steps: list[int]
    classifier: Classifier | None
    lpips: Distance | None
    left_out: list[str]

    @property
    def evaluations(self) -> int:
        """Of the denoiser, for the whole runs of the test images and all shortcuts."""
        steps = self.probing.inputs.settings.steps.sampling
        rests = [evaluations(way, taken, steps) for way in self.ways for taken in begins(way, self.full_steps)]
        return len(self.prompts) * (steps + sum(rests))


@dataclass(frozen=True)
class Shortcuts:
    """What early knowledge is worth: from which step on a sampler can do less, and when the probes could read that.

    Attributes:
        shortcuts: ways to do less from a step on.
        tolerance: a picture's property is fixed where it changes by less, of 1 (of errors, of their range).
        fraction: of the probe's score at the last step, by which it has emerged.
        probes: folder of a finished run of train.py whose probes are taken; None trains them first.
        lpips: also compare pictures by LPIPS, which needs torchvision and weights.
    """

    shortcuts: Annotated[list[Annotated[str, Choice(*WAYS, noun="shortcut")]], Items(1)]
    tolerance: Annotated[float, Number(above=0, below=1)] = 0.02
    fraction: Share = 0.95
    probes: Folder | None = None
    lpips: bool = False
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> ShortcutsTask:
        from diffprobe.activations.sources import Generation
        from diffprobe.analyses.shortcuts.agreement import lpips_distance

        settings, backbone = inputs.settings, inputs.backbone
        if class_name(settings.trajectory) != "generation":
            raise UserError(
                f"trajectory={class_name(settings.trajectory)}: analysis=shortcuts makes its own images, which is "
                "trajectory=generation"
            )
        if self.probes is None:
            probing, given = check_probing(inputs), None
        else:
            if settings.features.store == "none":
                raise UserError("features=none trains probes and keeps nothing for given ones; choose features=memory")
            probing, given = check_given(self.probes, inputs)
        assert isinstance(probing.source, Generation)  # other trajectories have been refused
        names, everything = probing.source.names, probing.source.prompts
        rows = range(len(names)) if given is not None else probing.probing_config.split(names).test
        prompts = [everything[row] for row in rows]
        sampling_steps = settings.steps.sampling
        ways, left_out = available(backbone, sampling_steps, [prompt.text for prompt in prompts], self.shortcuts)
        classifier, why = checked_classifier(inputs)
        task = ShortcutsTask(
            probing,
            given,
            prompts,
            ways,
            [0, *(step + 1 for step in probing.probing_config.steps)],
            classifier,
            lpips_distance() if self.lpips else None,
            [*left_out, *why],
        )
        _check_labeler(task)
        return task

    def plan(self, task: ShortcutsTask) -> Plan:
        plan = plan_probing(task.probing)
        line = (
            f"{len(task.prompts)} test images are made once more, and by {len(task.ways)} shortcuts, begun after "
            f"{', '.join(map(str, task.full_steps[:-1]))} full steps; {task.evaluations} network evaluations, some of "
            "which do less"
        )
        return Plan([*plan.summary, *task.left_out, line], plan.details)

    def run(self, task: ShortcutsTask, context: RunContext) -> tuple[ProbeBank, pd.DataFrame, ShortcutResults]:
        """The probes, trained here or given, with their scores; and what comes of the shortcuts."""
        from diffprobe.analyses.shortcuts.agreement import Agreement
        from diffprobe.analyses.shortcuts.study import ShortcutStudy

        bank, scores, before = _probes(task, context)
        inputs = task.probing.inputs
        context.log(f"making {len(task.prompts)} images by {len(task.ways)} shortcuts")
        with context.progress("images", len(task.prompts)) as advance:
            results = ShortcutStudy(
                inputs.backbone,
                task.prompts,
                task.ways,
                task.full_steps,
                inputs.labeler,
                Agreement(bank.properties, bank.standardisations, task.lpips),
                task.classifier,
                sampling_steps=inputs.settings.steps.sampling,
                batch_size=inputs.settings.features.batch_size,
                example_count=inputs.settings.report.examples,
                advance=advance,
            ).run()
        return bank, scores, replace(results, evaluations=before + results.evaluations)

    def report(
        self, task: ShortcutsTask, result: tuple[ProbeBank, pd.DataFrame, ShortcutResults], context: RunContext
    ) -> Report:
        from diffprobe.analyses.shortcuts.report import report

        bank, scores, results = result
        return report(
            task.probing.inputs.backbone.name,
            bank,
            scores,
            results,
            sampling_steps=task.probing.inputs.settings.steps.sampling,
            tolerance=self.tolerance,
            fraction=self.fraction,
            left_out=task.left_out,
            seed=context.seed,
        )


def checked_classifier(inputs: Inputs) -> tuple[Classifier | None, list[str]]:
    """The classifier, where it knows pictures of this size; else a sentence."""
    classifier = inputs.classifier
    try:
        classifier.check(inputs.backbone.image_size)
    except UserError as error:
        return None, [f"classes are left out: {error}"]
    return classifier, []


def _check_labeler(task: ShortcutsTask) -> None:
    """Raises UserError where the labeler cannot label the pictures that shortcuts make."""
    from diffprobe.analyses.shortcuts.study import shortcut_name
    from diffprobe.labels.labeler import check_reference_maps

    inputs, sampling_steps = task.probing.inputs, task.probing.inputs.settings.steps.sampling
    names = [
        shortcut_name(prompt.name, way, taken)
        for way in task.ways
        for taken in begins(way, task.full_steps)
        for prompt in task.prompts
        if taken < sampling_steps
    ]
    properties, size = list(task.probing.probing_config.items), inputs.backbone.image_size
    check_reference_maps(inputs.labeler, names, properties, size)


def _probes(task: ShortcutsTask, context: RunContext) -> tuple[ProbeBank, pd.DataFrame, int]:
    """The probes, their scores, and network evaluations."""
    from diffprobe.analyses.trained_probes import extract_unseen, score_probes
    from diffprobe.probes.score_table import concatenate

    if task.given is None:
        trained = train_probes(task.probing, context)
        return trained.bank, trained.scores, trained.evaluations
    given, model = task.given, task.probing.inputs.backbone.name
    extraction, targets, evaluations_of_probes = extract_unseen(task.probing, context)
    rows = range(len(task.prompts))
    own = score_probes(given.bank, extraction.activations, targets, rows, model=model, probe=given.name)
    return given.bank, concatenate([given.validation, own]), evaluations_of_probes

"""Whether the image follows when activations are changed so that a frozen probe reports another map."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.trained_probes import ProbingTask, check_probing, plan_probing, train_probes
from diffprobe.errors import UserError
from diffprobe.parts import class_name
from diffprobe.ranges import Choice, Count, Folder, Items, Number

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.analyses.intervention.edits import Editing
    from diffprobe.analyses.intervention.trials import InterventionResults, Targets
    from diffprobe.data.prompts import Prompt
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.report.report import Report

OTHER_SCENES = 500  # added to the seed: scenes to edit are others than those that any run is likely to train on
EDITABLE = ("binary", "continuous", "depth")  # kinds of properties
METHODS = ("pattern", "minimum_norm", "steering", "gradient")


@dataclass(frozen=True)
class InterventionTask:
    """Validated inputs of the run.

    Attributes:
        prompts: of the images to edit.
        probing: of the probes that are trained; None where `bank` is given.
    """

    inputs: Inputs
    prompts: list[Prompt]
    editings: list[Editing]
    targets: Targets
    probing: ProbingTask | None = None
    bank: ProbeBank | None = None


@dataclass(frozen=True)
class Intervention:
    """Whether the image follows when activations are changed so that a frozen probe reports another map.

    Attributes:
        probes: folder of a finished run of train.py whose probes are taken; None trains them first.
        prompts, count: the images to edit, as `data.prompts`; by default scenes that no probe was trained on.
        trials: moves of each image's map.
        target, range: what is moved: pixels along both axes, degrees, or factors that are drawn from; or a `mask`.
        methods: how activations are edited; each is held against random directions.
        half: of the guidance batch that is edited.
        margin: of 'pattern' and 'minimum_norm', log odds beyond the probe's threshold.
        strength: of 'steering', share of the tokens' length.
        learning_rate, iterations: of 'gradient'.
        frames: of the animation that moves the first image's map step by step; 0 makes none.
    """

    probes: Folder | None = None
    prompts: Folder | None = None
    count: Count = 50
    trials: Annotated[int, Number(1, 1000)] = 1
    target: Annotated[str, Choice("translation", "rotation", "scale", "file")] = "translation"
    range: Annotated[list[float], Items(0, 2, distinct=False)] = field(default_factory=list)
    mask: Folder | None = None
    methods: Annotated[list[Annotated[str, Choice(*METHODS, noun="method")]], Items()] = field(default_factory=list)
    half: Annotated[str, Choice("conditional", "both")] = "conditional"
    margin: Annotated[float, Number(0, 100)] = 2.0
    strength: Annotated[float, Number(above=0, high=10)] = 0.5
    learning_rate: Annotated[float, Number(above=0, high=10)] = 5e-3
    iterations: Annotated[int, Number(1, 100_000)] = 128
    frames: Annotated[int, Number(0, 1000)] = 9
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> InterventionTask:
        from diffprobe.analyses.trained_probes import read_probes
        from diffprobe.backbone.trajectory import fresh_scheduler
        from diffprobe.data.prompts import load_prompts

        settings = inputs.settings
        if class_name(settings.trajectory) != "generation":
            raise UserError(f"trajectory={class_name(settings.trajectory)}: interventions are in trajectory=generation")
        items = inputs.properties
        if len(items) != 1:
            raise UserError(f"property.names={[item.name for item in items]}: intervene on one property at a time")
        if items[0].kind not in EDITABLE:
            raise UserError(
                f"property {items[0].name} is {items[0].kind}; targets are masks and quantities ({', '.join(EDITABLE)})"
            )
        prompts = load_prompts(self.prompts, self.count, settings.seed + OTHER_SCENES, inputs.log)
        inputs.tell_of_texts(prompts)
        probing, bank = None, None
        if not self.probes:
            probing = _check_training(inputs, prompts)
            layers, steps = probing.probing_config.layers, list(probing.probing_config.steps)
        else:
            given = read_probes(self.probes, inputs)
            prompts, bank = given.unseen(prompts), given.bank
            timesteps = fresh_scheduler(inputs.backbone, settings.steps.sampling).timesteps
            layers, steps = inputs.layers, inputs.steps(range(len(timesteps)))
        editings = self._editings(inputs, [layer.name for layer in layers], steps)
        if bank is not None:
            for editing in editings:
                editing.check(bank)
        task = InterventionTask(inputs, prompts, editings, self._targets(inputs), probing, bank)
        _check_labeler(task)
        return task

    def plan(self, task: InterventionTask) -> Plan:
        backbone, count, steps = task.inputs.backbone, len(task.prompts), task.inputs.settings.steps.sampling
        each = 2 * len(task.editings) * self.trials
        line = (
            f"{backbone.name} on {backbone.device}: {count} images as they are and {each} times edited at "
            f"{len(task.editings[0].layers)} layers in {len(task.editings[0].steps)} of {steps} steps; "
            f"{count * steps * (1 + each)} network evaluations"
        )
        if task.probing is None:
            return Plan([line])
        plan = plan_probing(task.probing)
        return Plan([*plan.summary, line], plan.details)

    def run(self, task: InterventionTask, context: RunContext) -> tuple[ProbeBank, InterventionResults]:
        """Trains the probes where they are not given, edits, and labels what comes of it."""
        from diffprobe.analyses.intervention.target_maps import prompt_agreement
        from diffprobe.analyses.intervention.trials import InterventionStudy
        from diffprobe.pocket.networks import load_classifier

        inputs, bank, evaluations = task.inputs, task.bank, 0
        if task.probing is not None:
            trained = train_probes(task.probing, context)
            bank, evaluations = trained.bank, trained.evaluations
        assert bank is not None  # one of the two is there
        of_pocket = inputs.settings.model.path == "pocket"
        study = InterventionStudy(
            inputs.backbone,
            task.prompts,
            inputs.labeler,
            bank,
            task.editings,
            task.targets,
            batch_size=inputs.settings.features.batch_size,
            sampling_steps=inputs.settings.steps.sampling,
            example_count=2 * inputs.settings.report.examples,
            agreement=partial(prompt_agreement, classifier=load_classifier()) if of_pocket else None,
            log=context.log,
        )
        results = study.run(context.seed)
        evaluations += results.evaluations
        animation, example = None, next((each for each in results.examples if each.move is not None), None)
        if self.frames >= 2 and example is not None:
            context.log(f"generating {self.frames} frames of an animation")
            animation = study.animate(example, results.covariances, self.frames)
            evaluations += self.frames * study.sampling_steps
        return bank, replace(results, animation=animation, evaluations=evaluations)

    def report(
        self, task: InterventionTask, result: tuple[ProbeBank, InterventionResults], context: RunContext
    ) -> Report:
        from diffprobe.analyses.intervention.report import report

        made = report(task.inputs.backbone.name, task.editings[0].property, *result)
        return replace(made, evaluations=result[1].evaluations)

    def _editings(self, inputs: Inputs, layers: list[str], steps: list[int]) -> list[Editing]:
        from diffprobe.analyses.intervention.edits import OF_LINEAR_PROBES, Editing

        if not self.methods:
            raise UserError("analysis.methods is empty; give at least one")
        head = inputs.settings.probe.head
        wrong = [method for method in self.methods if method in OF_LINEAR_PROBES and head != "linear"]
        if wrong and self.probes is None:
            raise UserError(f"analysis.methods: {wrong[0]} is for linear probes, not probe.head={head}")
        return [
            Editing(
                inputs.properties[0].name,
                layers,
                steps,
                method=method,
                half=self.half,
                margin=self.margin,
                strength=self.strength,
                learning_rate=self.learning_rate,
                iterations=self.iterations,
            )
            for method in dict.fromkeys(self.methods)
        ]

    def _targets(self, inputs: Inputs) -> Targets:
        from diffprobe.analyses.intervention.target_maps import check_range, read_mask
        from diffprobe.analyses.intervention.trials import Targets

        size = inputs.backbone.image_size
        if self.target != "file" and self.mask is not None:
            raise UserError(f"analysis.mask={self.mask} is of analysis.target=file, not of {self.target}")
        if self.target != "file":
            if len(self.range) != 2:
                raise UserError(f"analysis.range={list(self.range)}: give a smallest and a largest")
            low, high = self.range
            check_range(self.target, low, high, size)
            return Targets(self.target, low, high, self.trials)
        if self.mask is None or not inputs.properties[0].binary:
            raise UserError("analysis.target=file needs analysis.mask=PICTURE and a property that is a mask")
        return Targets("file", trials=1, mask=read_mask(self.mask, size))


def _check_training(inputs: Inputs, prompts: list[Prompt]) -> ProbingTask:
    """Probes are trained on `data`'s prompts; `prompts`, of the images to edit, are others."""
    from diffprobe.activations.sources import Generation

    probing = check_probing(inputs)
    if probing.probing_config.groups:
        raise UserError("layers.groups cannot be edited, only layers: layers.groups=null")
    assert isinstance(probing.source, Generation)  # other trajectories have been refused
    names, trained = set(probing.source.names), {prompt.image_key for prompt in probing.source.prompts}
    both = [prompt.name for prompt in prompts if prompt.name in names or prompt.image_key in trained]
    if both:
        raise UserError(f"{len(both)} images are to be edited and to train probes on, such as {min(both)}; give others")
    return probing


def _check_labeler(task: InterventionTask) -> None:
    """Raises UserError where the labeler cannot label the images as they are, or edited."""
    from diffprobe.analyses.intervention.trials import edited_name
    from diffprobe.labels.labeler import check_reference_maps

    inputs, names = task.inputs, [prompt.name for prompt in task.prompts]
    properties, size = [item.name for item in inputs.properties], inputs.backbone.image_size
    edits = product([editing.method for editing in task.editings], range(task.targets.trials), (False, True))
    edited = [edited_name(name, *edit) for edit in edits for name in names]
    inputs.labeler.check(names, properties, size)
    check_reference_maps(inputs.labeler, edited, properties, size)

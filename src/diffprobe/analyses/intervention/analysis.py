"""`analysis=intervention`: activations edited so that a probe reports another map, to a run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from omegaconf import DictConfig

from diffprobe.analyses.inputs import chosen_steps
from diffprobe.analyses.probing import analysis as probing
from diffprobe.cli.analysis_schema import AnalysisJobSettings, check_analysis
from diffprobe.cli.errors import job_errors
from diffprobe.cli.running import Run, carry_out
from diffprobe.errors import UserError
from diffprobe.parts import make
from diffprobe.ranges import Choice, Count, Folder, Items, Number

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from diffprobe.analyses.intervention.edits import Editing
    from diffprobe.analyses.intervention.trials import InterventionFindings, Targets
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.report.tracking import Tracker

OTHER_SCENES = 500  # added to the seed: scenes to edit are others than those that any run is likely to train on


METHODS = ("pattern", "minimum_norm", "steering", "gradient")


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
    methods: Annotated[list[Annotated[str, Choice(*METHODS, called="method")]], Items()] = field(default_factory=list)
    half: Annotated[str, Choice("conditional", "both")] = "conditional"
    margin: Annotated[float, Number(0, 100)] = 2.0
    strength: Annotated[float, Number(above=0, high=10)] = 0.5
    learning_rate: Annotated[float, Number(above=0, high=10)] = 5e-3
    iterations: Annotated[int, Number(1, 100_000)] = 128
    frames: Annotated[int, Number(0, 1000)] = 9


@job_errors
def run(config: DictConfig) -> None:
    """Runs the analysis that `config` asks for, see `carry_out`."""
    carry_out(config, check_analysis, prepare, _work)


def _work(task: Task, run: Run[AnalysisJobSettings]) -> int:
    from diffprobe.analyses.intervention.report import report
    from diffprobe.report.publish import publish

    settings, console = run.settings, run.console
    bank, evaluations = _bank(task, settings, run.tracker, console)
    found = _study(task, bank, settings, console)
    animation = _animation(task, bank, found, settings, console)
    publish(report(task.backbone.name, settings.property.names[0], bank, found, animation), run)
    frames = len(animation[0]) if animation else 0
    return evaluations + found.evaluations + frames * settings.steps.sampling


@dataclass(frozen=True)
class Task:
    """What is left once everything the user gave has been checked: `probing` is None where probes are given."""

    backbone: Backbone
    labeler: Any
    prompts: list[Prompt]
    editings: list[Editing]
    targets: Targets
    probing: probing.Task | None
    bank: ProbeBank | None


def prepare(settings: AnalysisJobSettings, console: Console) -> Task:
    """Checks all input and tells the plan.

    Raises:
        UserError: for anything the user got wrong, before any work is done.
    """
    if settings.trajectory.kind != "generation":
        raise UserError(f"trajectory={settings.trajectory.kind}: interventions are in trajectory=generation")
    if len(settings.property.names) != 1:
        raise UserError(f"property.names={list(settings.property.names)}: intervene on one property at a time")
    task = _given(settings, console) if settings.analysis.probes else _to_train(settings, console)
    _check_labeler(task, settings)
    each = 2 * len(task.editings) * settings.analysis.trials
    console.print(
        f"{task.backbone.name} on {task.backbone.device}: {len(task.prompts)} images as they are and {each} times "
        f"edited at {len(task.editings[0].layers)} layers in {len(task.editings[0].steps)} of "
        f"{settings.steps.sampling} steps; "
        f"{len(task.prompts) * settings.steps.sampling * (1 + each)} network evaluations",
        soft_wrap=True,
    )
    return task


def _to_train(settings: AnalysisJobSettings, console: Console) -> Task:
    """Probes are trained on `data`'s prompts; the images to edit are others."""
    from diffprobe.activations.sources.generation import Generation

    job = probing.prepare(settings, console)
    if job.question.groups:
        raise UserError("layers.groups cannot be edited, only layers: layers.groups=null")
    prompts = _prompts(settings, console)
    assert isinstance(job.source, Generation)  # prepare() has seen to it
    trained = {prompt.picture for prompt in job.source.prompts}
    both = [prompt.name for prompt in prompts if prompt.name in job.source.names or prompt.picture in trained]
    if both:
        raise UserError(f"{len(both)} images are to be edited and to train probes on, such as {min(both)}; give others")
    layers, steps = [layer.name for layer in job.question.layers], list(job.question.steps)
    targets = _targets(settings, job.backbone)
    return Task(job.backbone, job.labeler, prompts, _editings(settings, layers, steps), targets, job, None)


def _given(settings: AnalysisJobSettings, console: Console) -> Task:
    """Probes of a finished run; the images to edit are such as they have not seen."""
    from diffprobe.analyses.given_probes import read_probes
    from diffprobe.analyses.inputs import chosen_layers, load_model
    from diffprobe.backbone.trajectory import fresh_scheduler

    backbone = load_model(settings)
    given = read_probes(settings.analysis.probes or "", settings, backbone.name)
    layers = [layer.name for layer in chosen_layers(settings.layers.select, backbone)]
    there = range(len(fresh_scheduler(backbone, settings.steps.sampling).timesteps))
    editings = _editings(settings, layers, chosen_steps(settings.steps.select, there))
    for editing in editings:
        editing.check(given.bank)
    prompts = given.unseen(_prompts(settings, console))
    labeler = make(settings.labeler)
    return Task(backbone, labeler, prompts, editings, _targets(settings, backbone), None, given.bank)


def _prompts(settings: AnalysisJobSettings, console: Console) -> list[Prompt]:
    from diffprobe.data.prompts import load_prompts

    analysis = settings.analysis
    tell = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    return load_prompts(analysis.prompts, analysis.count, settings.seed + OTHER_SCENES, tell)


def _editings(settings: AnalysisJobSettings, layers: list[str], steps: list[int]) -> list[Editing]:
    from diffprobe.analyses.intervention.edits import OF_LINEAR_PROBES, Editing

    analysis, name = settings.analysis, settings.property.names[0]
    if not analysis.methods:
        raise UserError("analysis.methods is empty; give at least one")
    wrong = [method for method in analysis.methods if method in OF_LINEAR_PROBES and settings.probe.head != "linear"]
    if wrong and analysis.probes is None:
        raise UserError(f"analysis.methods: {wrong[0]} is for linear probes, not probe.head={settings.probe.head}")
    return [
        Editing(
            name,
            layers,
            steps,
            method=method,
            half=analysis.half,
            margin=analysis.margin,
            strength=analysis.strength,
            learning_rate=analysis.learning_rate,
            iterations=analysis.iterations,
        )
        for method in dict.fromkeys(analysis.methods)
    ]


def _targets(settings: AnalysisJobSettings, backbone: Backbone) -> Targets:
    from diffprobe.analyses.intervention.target_maps import KINDS, check_range, read_mask
    from diffprobe.analyses.intervention.trials import Targets
    from diffprobe.probes.properties import property_named

    analysis = settings.analysis
    if analysis.target not in KINDS:
        raise UserError(f"analysis.target={analysis.target}: choose one of {', '.join(KINDS)}")
    if analysis.target != "file" and analysis.mask is not None:
        raise UserError(f"analysis.mask={analysis.mask} is of analysis.target=file, not of {analysis.target}")
    if analysis.target != "file":
        if len(analysis.range) != 2:
            raise UserError(f"analysis.range={list(analysis.range)}: give a smallest and a largest")
        low, high = analysis.range
        check_range(analysis.target, low, high, backbone.image_size)
        return Targets(analysis.target, low, high, analysis.trials)
    if analysis.mask is None or not property_named(settings.property.names[0]).binary:
        raise UserError("analysis.target=file needs analysis.mask=PICTURE and property=saliency")
    return Targets("file", trials=1, mask=read_mask(analysis.mask, backbone.image_size))


def _check_labeler(task: Task, settings: AnalysisJobSettings) -> None:
    """Every picture that is to be labelled, before any is made. Raises UserError as the labeler does."""
    from diffprobe.analyses.intervention.trials import edited_name
    from diffprobe.labels.labeler import check_seen

    names = [prompt.name for prompt in task.prompts]
    edits = [
        (editing.method, trial, random)
        for editing in task.editings
        for trial in range(task.targets.trials)
        for random in (False, True)
    ]
    edited = [edited_name(name, *edit) for edit in edits for name in names]
    task.labeler.check(names, settings.property.names, task.backbone.image_size)
    check_seen(task.labeler, edited, settings.property.names, task.backbone.image_size)


def _bank(task: Task, settings: AnalysisJobSettings, tracker: Tracker, console: Console) -> tuple[ProbeBank, int]:
    """The probes, and how often the network was evaluated for them."""
    if task.probing is None:
        assert task.bank is not None  # one of the two is there
        return task.bank, 0
    found = probing.find(task.probing, settings, tracker, console)
    return found.bank, found.evaluations


def _study(task: Task, bank: ProbeBank, settings: AnalysisJobSettings, console: Console) -> InterventionFindings:
    from diffprobe.analyses.intervention.prompt_agreement import PromptAgreement
    from diffprobe.analyses.intervention.trials import Running, study_intervention

    running = Running(
        batch_size=settings.features.batch_size,
        sampling_steps=settings.steps.sampling,
        shown=2 * settings.report.examples,
        agreement=PromptAgreement() if settings.model.path == "pocket" else None,  # it knows the pocket world alone
        tell=console.print,
    )
    return study_intervention(
        task.backbone, task.prompts, task.labeler, bank, task.editings, task.targets, running, settings.seed
    )


def _animation(
    task: Task, bank: ProbeBank, found: InterventionFindings, settings: AnalysisJobSettings, console: Console
) -> tuple[Tensor, Tensor] | None:
    """The first image whose map moves, see `animate`; None without one, or where fewer than two frames are wanted."""
    from diffprobe.analyses.intervention.trials import animate

    frames = settings.analysis.frames
    example = next((each for each in found.pictured if each.move is not None), None)
    if frames < 2 or example is None:
        return None
    console.print(f"generating {frames} frames of an animation")
    return animate(
        task.backbone,
        example,
        bank,
        task.editings[0],
        found.covariances,
        frames=frames,
        mask=bank.properties[settings.property.names[0]].binary,
        sampling_steps=settings.steps.sampling,
        batch_size=settings.features.batch_size,
    )

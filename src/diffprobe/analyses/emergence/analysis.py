"""`analysis=emergence`: probes on activations against image models on the unfinished picture, to a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from omegaconf import DictConfig

from diffprobe.analyses.probing import analysis as probing
from diffprobe.cli.analysis_schema import AnalysisJobSettings, check_analysis
from diffprobe.cli.errors import job_errors
from diffprobe.cli.running import Run, carry_out
from diffprobe.errors import UserError
from diffprobe.parts import make
from diffprobe.ranges import Folder, Items, Share
from diffprobe.runs.trainers import make_trainer

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from diffprobe.analyses.emergence.image_models import Probed, Seen
    from diffprobe.analyses.given_probes import GivenProbes
    from diffprobe.report.tracking import Tracker


@dataclass(frozen=True)
class Emergence:
    """When probes find a property in the activations, and when an image model finds it in the unfinished picture.

    Attributes:
        fractions: of the score at the last step; the first one is reported.
        probes: folder of a finished run of train.py whose probes are taken; None trains them first.
    """

    fractions: Annotated[list[Share], Items(1)]
    probes: Folder | None = None


@job_errors
def run(config: DictConfig) -> None:
    """Runs the analysis that `config` asks for, see `carry_out`."""
    carry_out(config, check_analysis, prepare, _work, share=_share)


def _share(prepared: tuple[probing.Task, GivenProbes | None], settings: AnalysisJobSettings, console: Console) -> None:
    _probed(*prepared, settings, None, console)


def _work(prepared: tuple[probing.Task, GivenProbes | None], run: Run[AnalysisJobSettings]) -> int:
    from diffprobe.analyses.emergence.report import report
    from diffprobe.report.publish import publish

    task, given = prepared
    findings = study(task, given, run.settings, run.tracker, run.console)
    fractions, bank = list(run.settings.analysis.fractions), findings.probed.bank
    captions, seed = task.source.captions, run.settings.seed
    publish(
        report(task.backbone.name, findings.scores, bank, findings.seen, captions, fractions=fractions, seed=seed), run
    )
    return findings.evaluations


@dataclass(frozen=True)
class EmergenceFindings:
    """Scores of probes and image models, the first test images with all that was seen of them, and the probes."""

    scores: pd.DataFrame
    seen: list[Seen]
    probed: Probed
    evaluations: int


def prepare(settings: AnalysisJobSettings, console: Console) -> tuple[probing.Task, GivenProbes | None]:
    """Checks all input and tells the plan; the probes where they are given.

    Raises:
        UserError: for anything the user got wrong, before any work is done.
    """
    from diffprobe.analyses.emergence.image_models import check_labeler

    _check_analysis(settings)
    if settings.analysis.probes is None:
        task, given = probing.prepare(settings, console), None
        rows = task.question.split(task.source.names).test
    else:
        task, given = _prepare_given(settings, console)
        rows = range(len(task.source.names))
    names = [task.source.names[row] for row in rows]
    question = task.question
    check_labeler(task.labeler, names, question.steps, question.properties, task.backbone.image_size)
    console.print(f"image models look at {len(names)} test images after {len(question.steps)} steps", soft_wrap=True)
    return task, given


def study(
    task: probing.Task,
    given: GivenProbes | None,
    settings: AnalysisJobSettings,
    tracker: Tracker,
    console: Console,
) -> EmergenceFindings:
    """Probes first, trained here or given, then image models on the same images. Raises UserError as the studies do."""
    from diffprobe.analyses.emergence.image_models import see_images
    from diffprobe.probes.score_table import concatenate

    probed, scores, evaluations = _probed(task, given, settings, tracker, console)
    console.print(f"labelling {len(probed.rows)} images as they look after each step")
    found, seen = see_images(task.backbone, task.labeler, probed, shown=settings.report.examples)
    return EmergenceFindings(concatenate([scores, found]), seen, probed, evaluations)


def _check_analysis(settings: AnalysisJobSettings) -> None:
    if settings.trajectory.kind != "generation":
        raise UserError(
            f"trajectory={settings.trajectory.kind}: analysis=emergence follows images while they are made, which is "
            "trajectory=generation"
        )
    if settings.features.store == "none":
        raise UserError("features=none keeps no latents to decode; choose features=memory or features=disk")


def _prepare_given(settings: AnalysisJobSettings, console: Console) -> tuple[probing.Task, GivenProbes]:
    """The task of probes that are given: layers, steps and properties are theirs, images those they have not seen."""
    from diffprobe.activations.sources.generation import Generation
    from diffprobe.analyses.given_probes import read_probes
    from diffprobe.analyses.inputs import chosen_layers, chosen_steps, load_model, make_source, make_stores
    from diffprobe.probes.study.question import Question

    if settings.control.names:
        raise UserError("analysis.probes gives trained probes, and controls would have to be trained: control=none")
    backbone = load_model(settings)
    given = read_probes(settings.analysis.probes or "", settings, backbone.name)
    everything = make_source(settings, console.print)
    assert isinstance(everything, Generation)
    source = Generation(given.unseen(everything.prompts), everything.sampling_steps, everything.half)
    bank = given.bank
    layers = chosen_layers(bank.layers, backbone)
    steps = chosen_steps(bank.steps, source.timesteps(backbone))
    question = Question(layers, steps, properties=list(bank.properties), controls=[], seed=settings.seed)
    labeler = make(settings.labeler)
    labeler.check(source.names, question.properties, backbone.image_size)
    stores = make_stores(settings, backbone, source)
    plan = probing.make_plan(settings, backbone, source, question, stores)
    console.print(
        f"{backbone.name} on {backbone.device}: {len(source.names)} images that the probes of "
        f"{settings.analysis.probes} have not seen, {len(layers)} layers, {len(steps)} steps, "
        f"{', '.join(question.properties)}; {plan.evaluations} network evaluations",
        soft_wrap=True,
    )
    return probing.Task(backbone, source, labeler, question, stores, plan), given


def _probed(
    task: probing.Task,
    given: GivenProbes | None,
    settings: AnalysisJobSettings,
    tracker: Tracker | None,
    console: Console,
) -> tuple[Probed, pd.DataFrame, int]:
    """Probes with the images to test them on, their scores, and how often the network was evaluated."""
    from diffprobe.analyses.emergence.image_models import Probed, score_given
    from diffprobe.probes.score_table import concatenate

    question = task.question
    if given is None:
        found = probing.find(task, settings, tracker, console)
        assert found.extraction is not None  # features=none has been refused
        assert found.targets is not None
        activations = question.read(found.extraction.activations)
        rows, name = found.split.test, settings.probe.name
        probed = Probed(found.bank, found.extraction, activations, found.targets, rows, name)
        return probed, found.scores, found.evaluations
    extraction = _extract(task, settings, console)
    targets = task.labeler(extraction.images, task.source.names, question.properties)
    rows = range(len(task.source.names))
    probed = Probed(given.bank, extraction, extraction.activations, targets, rows, given.name)
    scores = concatenate([given.validation, score_given(probed, task.backbone.name)])
    return probed, scores, extraction.computed * task.source.evaluations(task.backbone, question.steps)


def _extract(task: probing.Task, settings: AnalysisJobSettings, console: Console):
    from diffprobe.activations.extraction import extract

    console.print(f"running {len(task.source.names)} images through {len(task.question.steps)} steps")
    features = settings.features
    return extract(
        task.backbone,
        task.source,
        task.question.recorded,
        task.question.steps,
        batch_size=features.batch_size,
        dtype=features.dtype,
        stores=task.stores,
        images_per_shard=features.images_per_shard,
        trainer=make_trainer(settings, "generate", None),
        tell=console.print,
    )

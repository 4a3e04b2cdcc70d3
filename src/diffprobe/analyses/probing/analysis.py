"""The main job: `train.py`'s configuration to a run folder with tables, figures, probes and a tracked run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.analyses.inputs import chosen_steps
from diffprobe.cli.errors import job_errors
from diffprobe.cli.running import Run, carry_out
from diffprobe.cli.schema import ProbeSettings, ProbingSettings, checked
from diffprobe.parts import make
from diffprobe.runs.folder import objective_of
from diffprobe.runs.trainers import make_trainer

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.activations.budget import Plan
    from diffprobe.activations.groups import LayerGroup
    from diffprobe.activations.sources.source import Source
    from diffprobe.activations.stores import Stores
    from diffprobe.backbone.layers import Layer
    from diffprobe.backbone.load import Backbone
    from diffprobe.probes.config import Recipe
    from diffprobe.probes.study.two_pass import Findings, Question, Shown
    from diffprobe.report.example import PredictionExample
    from diffprobe.report.report import Report
    from diffprobe.report.tracking import Tracker

_PLACES = {"disk": "on disk", "memory": "in memory", "none": "held at a time, and not kept"}


@job_errors
def run(config: DictConfig) -> float | None:
    """Runs the study that `config` asks for, into Hydra's output folder; a folder that has it already is left alone.

    Returns:
        What a search maximises, see `objective`; None for a dry run and for the helping processes of a run.
    """
    finished = carry_out(config, checked, prepare, _work, share=_share)
    return None if finished is None else objective_of(finished)


def _share(task: Task, settings: ProbingSettings, console: Console) -> None:
    find(task, settings, None, console)


def _work(task: Task, run: Run[ProbingSettings]) -> int:
    from diffprobe.report.publish import publish

    findings = find(task, run.settings, run.tracker, run.console)
    publish(_report(task, run.settings, findings), run)
    return findings.evaluations


@dataclass(frozen=True)
class Task:
    """What is left once everything the user gave has been checked against everything else."""

    backbone: Backbone
    source: Source
    labeler: Any
    question: Question
    stores: Stores | None
    plan: Plan


def prepare(settings: ProbingSettings, console: Console) -> Task:
    """Checks all input and tells the plan.

    Raises:
        UserError: for anything the user got wrong, before any work is done.
    """
    from diffprobe.activations.budget import in_units
    from diffprobe.analyses.inputs import (
        check_noise,
        chosen_groups,
        chosen_layers,
        load_model,
        make_source,
        make_stores,
    )
    from diffprobe.analyses.probing.learning_curve import check_curve
    from diffprobe.labels.labeler import FromFiles

    source = make_source(settings, partial(console.print, soft_wrap=True, markup=False, highlight=False))
    labeler = make(settings.labeler)
    backbone = load_model(settings)
    check_noise(settings, backbone)
    steps = chosen_steps(settings.steps.select, source.timesteps(backbone))
    layers = chosen_layers(settings.layers.select, backbone)
    question = _question(settings, layers, chosen_groups(settings.layers.groups, backbone), steps)
    if isinstance(labeler, FromFiles):
        labeler.follow(source.geometries())
    labeler.check(source.names, question.properties, backbone.image_size)
    check_curve(settings, question.split(source.names))
    stores = make_stores(settings, backbone, source)
    plan = make_plan(settings, backbone, source, question, stores)
    there = len(source.timesteps(backbone))
    console.print(
        f"{backbone.name} on {backbone.device}: {len(source.names)} images, {len(question.inputs)} layers, "
        f"{len(steps)} of {there} steps, {', '.join(question.properties)}; {plan.evaluations} network evaluations, "
        f"{in_units(plan.bytes)} of activations {_PLACES[settings.features.store]}",
        soft_wrap=True,
    )
    if settings.dry_run:
        console.print("\n".join(plan.lines()), soft_wrap=True)
    return Task(backbone, source, labeler, question, stores, plan)


def make_plan(
    settings: ProbingSettings, backbone: Backbone, source: Source, question: Question, stores: Stores | None
) -> Plan:
    from diffprobe.activations.budget import check_memory, plan_live, plan_run, plan_stores
    from diffprobe.activations.control_inputs import CONTROL_INPUTS, control_layers
    from diffprobe.activations.description import describe
    from diffprobe.probes.study.two_pass import replayed_controls

    features = settings.features
    layers, steps = stores.kept(question.recorded, question.steps) if stores else (question.recorded, question.steps)
    manifest = describe(
        backbone,
        source,
        layers,
        steps,
        features.dtype,
        features.images_per_shard,
        identified=stores is not None,
    )
    once, again = source.evaluations(backbone, steps), len(steps) * source.draws
    controls = replayed_controls(question)
    inputs = control_layers(backbone, [name for name in question.controls if name in CONTROL_INPUTS])
    if stores:
        return plan_stores(manifest, once, controls, again, stores.folder, inputs)
    if features.store == "none":
        plan = plan_live(manifest, once, controls, again, features.batch_size)
    else:
        plan = plan_run(manifest, once, controls, again, inputs)
    check_memory(plan)
    return plan


def _question(settings: ProbingSettings, layers: list[Layer], groups: list[LayerGroup], steps: list[int]) -> Question:
    from diffprobe.analyses.inputs import test_prompts
    from diffprobe.probes.study.two_pass import Question

    return Question(
        layers=layers,
        steps=steps,
        groups=groups,
        properties=list(settings.property.names),
        controls=list(settings.control.names),
        fractions=list(settings.data.fractions),
        test=[prompt.name for prompt in test_prompts(settings, lambda _: None)],  # make_source has told of them
        recipe=_recipe(settings.probe),
        threshold=settings.property.threshold,
        seed=settings.seed,
    )


def _recipe(probe: ProbeSettings) -> Recipe:
    from diffprobe.probes.config import Recipe

    return Recipe(**OmegaConf.to_container(probe))  # type: ignore[arg-type]


def find(task: Task, settings: ProbingSettings, tracker: Tracker | None, console: Console) -> Findings:
    from diffprobe.probes.study.two_pass import Means, study_emergence

    features = settings.features
    means = Means(
        batch_size=features.batch_size,
        dtype=features.dtype,
        stores=task.stores,
        live=features.store == "none",
        images_per_shard=features.images_per_shard,
        shown=settings.report.examples,
        trainer=lambda stage: make_trainer(settings, stage, tracker),
        tell=console.print,
    )
    return study_emergence(task.backbone, task.source, task.labeler, task.question, means)


def _report(task: Task, settings: ProbingSettings, findings: Findings) -> Report:
    from diffprobe.analyses.probing.learning_curve import learning_points
    from diffprobe.analyses.probing.report import report
    from diffprobe.probes.controls import selectivity
    from diffprobe.probes.summaries import best_layer

    best = {name: best_layer(findings.summaries, name) for name in task.question.properties}
    more = {"learning_curve": learning_points(task.question, findings, best.values(), settings)}
    if "labels" in task.question.controls:
        more["selectivity"] = selectivity(findings.scores)
    examples = [_example(each, task.question.steps, task.source.captions[each.row], best) for each in findings.shown]
    return report(
        findings.scores,
        findings.summaries,
        seed=settings.seed,
        layers=task.question.inputs,
        examples=examples,
        maps=_layer_maps(findings.shown),
        published=settings.report.published,
        warnings=findings.warnings,
        more={name: data for name, data in more.items() if data is not None},
        bank=findings.bank,
    )


def _layer_maps(shown: Sequence[Shown]) -> dict[str, dict[str, Any]]:
    """What the probes of every layer see of the first image shown, [steps, h, w] by property and layer."""
    if not shown:
        return {}
    return {
        name: {layer: maps.numpy() for layer, maps in layers.items()} for name, layers in shown[0].predictions.items()
    }


def _example(shown: Shown, steps: Sequence[int], title: str, layers: dict[str, str]) -> PredictionExample:
    """What the best layer's probes say of one test image, step by step."""
    from diffprobe.report.example import PredictionExample

    predictions = {name: shown.predictions[name][layer] for name, layer in layers.items()}
    return PredictionExample.of_tensors(title, steps, shown.steps, shown.final, predictions, shown.labels)

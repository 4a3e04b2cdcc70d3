"""The main job: `train.py`'s configuration to a run folder with tables, figures, probes and a tracked run."""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffprobe.doors.errors import plain_errors
from diffprobe.doors.reporting import REPORT_WIDTH
from diffprobe.doors.schema import ProbeSettings, ProbingSettings, checked, chosen_steps
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.backbone.layers import Layer
    from diffprobe.backbone.load import Backbone
    from diffprobe.features.plan import Plan
    from diffprobe.features.sources.source import Source
    from diffprobe.probes.recipe import Recipe
    from diffprobe.report.example import PredictionExample
    from diffprobe.report.tracking import Tracker
    from diffprobe.studies.emergence import Findings, Question


@plain_errors
def run(config: DictConfig) -> None:
    """Runs the study that `config` asks for, into Hydra's output folder."""
    from rich.console import Console

    started = time.perf_counter()
    settings = checked(config)
    folder = Path(HydraConfig.get().runtime.output_dir)
    with quiet_libraries():
        from lightning.pytorch.utilities import rank_zero_only

        helping = rank_zero_only.rank > 0  # one of several processes: it shares the work, and leaves the telling
        console = Console(width=max(Console().width, REPORT_WIDTH), quiet=helping)
        task = _prepare(settings, console)
        if settings.dry_run:
            console.print("\n".join(task.plan.lines()), soft_wrap=True)
            return
        if helping:
            _work(task, settings, None, console)
            return
        plain = OmegaConf.to_container(config, resolve=True)
        with instantiate(settings.logger, _partial_=True)(folder=folder, config=plain) as tracker:
            findings = _work(task, settings, tracker, console)
            _leave(task, settings, folder, tracker, console, findings, started)


@dataclass(frozen=True)
class _Task:
    """What is left once everything the user gave has been checked against everything else."""

    backbone: Backbone
    source: Source
    labeler: Any
    question: Question
    plan: Plan


def _prepare(settings: ProbingSettings, console: Console) -> _Task:
    """Checks all input and tells the plan.

    Raises:
        UserError: for anything the user got wrong, before any work is done.
    """
    from diffprobe.backbone.layers import catalogue, select_layers
    from diffprobe.backbone.load import load_backbone
    from diffprobe.doors.sources import make_source
    from diffprobe.features.store.plan import in_units

    source = make_source(settings, console.print)
    labeler = instantiate(settings.labeler)
    backbone = load_backbone(**settings.model)  # type: ignore[arg-type]
    steps = chosen_steps(settings.steps.select, source.timesteps(backbone))
    wanted = settings.layers.select
    layers = select_layers(catalogue(backbone.denoiser), wanted if isinstance(wanted, str) else list(wanted))
    question = _question(settings, layers, steps)
    labeler.check(source.names, question.properties, backbone.image_size)
    plan = _plan(settings, backbone, source, question)
    console.print(
        f"{backbone.name} on {backbone.device}: {len(source.names)} images, {len(layers)} layers, {len(steps)} of "
        f"{len(source.timesteps(backbone))} steps, {', '.join(question.properties)}; {plan.evaluations} network "
        f"evaluations, {in_units(plan.bytes)} of activations in {settings.features.store}",
        soft_wrap=True,
    )
    return _Task(backbone, source, labeler, question, plan)


def _plan(settings: ProbingSettings, backbone: Backbone, source: Source, question: Question) -> Plan:
    from diffprobe.features.description import describe
    from diffprobe.features.plan import STORES, check_memory, plan_run, plan_stores
    from diffprobe.studies.emergence import replayed_controls

    features = settings.features
    if features.store not in STORES:
        raise UserError(f"features.store={features.store}: choose one of {', '.join(STORES)}")
    on_disk = features.store == "disk"
    manifest = describe(
        backbone,
        source,
        question.layers,
        question.steps,
        features.dtype,
        features.images_per_shard,
        identified=on_disk,
    )
    once, again = source.evaluations(backbone, question.steps), len(question.steps) * source.draws
    controls = replayed_controls(question)
    if on_disk:
        return plan_stores(manifest, once, controls, again, Path(features.folder))
    plan = plan_run(manifest, once, controls, again)
    check_memory(plan)
    return plan


def _question(settings: ProbingSettings, layers: list[Layer], steps: list[int]) -> Question:
    from diffprobe.studies.emergence import Question

    return Question(
        layers=layers,
        steps=steps,
        properties=list(settings.property.names),
        controls=list(settings.control.names),
        fractions=list(settings.data.fractions),
        recipe=_recipe(settings.probe),
        threshold=settings.property.threshold,
        seed=settings.seed,
    )


def _recipe(probe: ProbeSettings) -> Recipe:
    from diffprobe.probes.recipe import Recipe

    return Recipe(**OmegaConf.to_container(probe))  # type: ignore[arg-type]


def _work(task: _Task, settings: ProbingSettings, tracker: Tracker | None, console: Console) -> Findings:
    from diffprobe.studies.emergence import Means, study_emergence

    features = settings.features
    means = Means(
        batch_size=features.batch_size,
        dtype=features.dtype,
        stores=Path(features.folder) if features.store == "disk" else None,
        images_per_shard=features.images_per_shard,
        shown=settings.report.examples,
        trainer=lambda stage: _trainer(settings, stage, tracker),
        tell=console.print,
    )
    return study_emergence(task.backbone, task.source, task.labeler, task.question, means)


def _trainer(settings: ProbingSettings, stage: str, tracker: Tracker | None) -> Any:
    import lightning
    from lightning.pytorch.callbacks import RichProgressBar

    return lightning.Trainer(
        **settings.trainer,  # type: ignore[arg-type]
        max_epochs=settings.probe.epochs,
        check_val_every_n_epoch=min(settings.probe.validate_every, settings.probe.epochs),
        num_sanity_val_steps=0,
        logger=tracker.lightning_logger(stage) if tracker and stage.startswith("train") else False,
        callbacks=[RichProgressBar()],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=50,
    )


def _leave(
    task: _Task,
    settings: ProbingSettings,
    folder: Path,
    tracker: Tracker,
    console: Console,
    findings: Findings,
    started: float,
) -> None:
    """Writes the run folder, prints the closing table, hands all to the tracker."""
    from diffprobe.probes.storage import save_bank
    from diffprobe.probes.tables import write_scores, write_summary
    from diffprobe.report.choices import choose
    from diffprobe.report.console import print_report, report_text
    from diffprobe.report.environment import write_environment
    from diffprobe.report.files import write_text
    from diffprobe.report.run_folder import draw_figures
    from diffprobe.report.tracking import Results

    tables = [folder / "scores.csv", folder / "summary.csv"]
    write_scores(tables[0], findings.scores)
    write_summary(tables[1], findings.summaries)
    probes = save_bank(findings.bank, folder / "probes")
    choices = choose(findings.summaries, findings.scores)
    examples = [
        _example(findings, row, task.source.captions[row], {choice.property: choice.best for choice in choices})
        for row in findings.shown
    ]
    figures = draw_figures(folder / "figures", findings.summaries, choices, task.question.layers, examples)
    write_text(folder / "report.txt", report_text(findings.summaries, choices))
    tracker.log(Results(findings.summaries, choices, figures, examples, {"tables": tables, "probes": probes}))
    write_environment(
        folder / "environment.json",
        seeds={"seed": settings.seed},
        wall_seconds=time.perf_counter() - started,
        network_evaluations=findings.evaluations,
    )
    print_report(findings.summaries, choices, console)
    console.print(tracker.describe(), soft_wrap=True)
    console.print(f"run folder: {folder} ({time.perf_counter() - started:.0f} s)", soft_wrap=True)


def _example(findings: Findings, row: int, prompt: str, layers: dict[str, str]) -> PredictionExample:
    """What the best layer's probes say of one test image, step by step."""
    from diffprobe.probes.scoring import predict_maps
    from diffprobe.report.example import PredictionExample

    activations = findings.extraction.activations
    return PredictionExample(
        title=prompt,
        steps=tuple(activations.steps),
        images=findings.shown[row].permute(0, 2, 3, 1).numpy(),
        predictions={
            name: predict_maps(findings.bank, activations, name, layer, [row])[:, 0].numpy()
            for name, layer in layers.items()
        },
        labels={name: findings.targets[name][row].numpy() for name in layers},
        final=findings.images[row].permute(1, 2, 0).numpy(),
    )


def quiet_libraries() -> Any:
    """Inside: no notices about data workers, devices and the like from Lightning and its dependencies."""
    import lightning.pytorch  # noqa: F401  (it sets its log level when it is imported, so before ours)

    stack = ExitStack()
    for name in ("lightning.pytorch", "lightning.fabric"):
        log = logging.getLogger(name)
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    return stack

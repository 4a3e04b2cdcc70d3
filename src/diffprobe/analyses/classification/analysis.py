"""The study of classes: `analyze.py analysis=classification`, from a configuration to a run folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from diffprobe.cli.analysis_schema import AnalysisJobSettings, check_analysis
from diffprobe.cli.errors import job_errors
from diffprobe.cli.parts import make
from diffprobe.cli.schema import chosen_steps
from diffprobe.errors import UserError
from diffprobe.runs.running import Run, carry_out

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.analyses.classification.classes import Watched
    from diffprobe.analyses.classification.photos import Photos
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers.classifier import Classifier
    from diffprobe.report.tracking import Tracker


@job_errors
def run(config: DictConfig) -> None:
    """Runs the analysis that `config` asks for, see `carry_out`."""
    carry_out(config, check_analysis, _prepare, _classify)


def _classify(task: _Task, run: Run[AnalysisJobSettings]) -> int:
    watched, photos = _work(task)
    _leave(task, watched, photos, run.folder, run.tracker, run.config)
    return len(task.prompts) * task.settings.steps.sampling


@dataclass(frozen=True)
class _Task:
    """What is left once everything the user gave has been checked against everything else."""

    settings: AnalysisJobSettings
    console: Console
    backbone: Backbone
    classifier: Classifier
    prompts: list[Prompt]
    right: list[int]
    photos: Photos | None
    steps: list[int]

    def tell(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


def _prepare(settings: AnalysisJobSettings, console: Console) -> _Task:
    """Checks all input and tells the plan.

    Raises:
        UserError: for anything the user got wrong, before any work is done.
    """
    from diffprobe.analyses.classification.photos import load_photos
    from diffprobe.backbone.load import load_backbone
    from diffprobe.data.prompts import load_prompts
    from diffprobe.labels.classifiers.classifier import checked_patterns, named_class

    data = settings.data
    if settings.trajectory.kind != "generation" or data.images is not None:
        raise UserError(
            "analysis=classification makes its own images from prompts (data=prompts trajectory=generation); real "
            "photos to hold them against are analysis.photos=FOLDER"
        )
    classifier = make(settings.classifier, "classifier")
    patterns = checked_patterns(settings.analysis.classes or {}, classifier.classes, classifier.name)
    tell = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    every = load_prompts(data.prompts, data.count, settings.seed, tell)
    named = [(prompt, named_class(prompt.text, classifier.classes, patterns)) for prompt in every]
    prompts, right = [one for one, at in named if at is not None], [at for _, at in named if at is not None]
    if not prompts:
        raise UserError(
            f"none of the {len(every)} prompts names exactly one class that {classifier.name} knows, such as "
            f"{every[0].text!r}; say what they show: 'analysis.classes={{WORDS: CLASS}}'"
        )
    backbone = load_backbone(**settings.model)  # type: ignore[arg-type]
    classifier.check(backbone.image_size)
    steps = chosen_steps(settings.steps.select, range(settings.steps.sampling))
    photos = load_photos(settings, classifier, set(right), len(prompts), backbone.image_size, tell)
    task = _Task(settings, console, backbone, classifier, prompts, right, photos, steps)
    if len(prompts) < len(every):
        task.tell(f"left out {len(every) - len(prompts)} of {len(every)} prompts, which name no class or several")
    task.tell(
        f"{backbone.name} on {backbone.device}: {len(prompts)} images of {len(set(right))} classes, {len(steps)} of "
        f"{settings.steps.sampling} steps, {_told(photos)}, classified by {classifier.name};"
        f" {len(prompts) * settings.steps.sampling} network evaluations"
    )
    return task


def _told(photos: Photos | None) -> str:
    return f"{len(photos.names)} {photos.called}" if photos else "no real photos"


def _work(task: _Task) -> tuple[Watched, Watched | None]:
    from rich.progress import Progress

    from diffprobe.analyses.classification.classes import watch_generation, watch_photos

    settings, batch = task.settings, task.settings.features.batch_size
    with Progress(console=task.console, transient=True) as progress:
        bar = progress.add_task("images", total=len(task.prompts))
        watched = watch_generation(
            task.backbone,
            task.prompts,
            task.right,
            task.classifier,
            sampling_steps=settings.steps.sampling,
            steps=task.steps,
            batch_size=batch,
            shown=settings.report.examples,
            tell=lambda done, total: progress.update(bar, completed=done),
        )
    photos = task.photos
    if photos is None:
        return watched, None
    return watched, watch_photos(photos.names, photos.batches(batch), photos.right, task.classifier)


def _leave(task: _Task, watched: Watched, photos: Watched | None, folder: Path, tracker: Tracker, plain: Any) -> None:
    """Writes the run folder, prints the sentences, hands all to the tracker; `plain` is the configuration."""
    from diffprobe.analyses.classification.classes import (
        PHOTOGRAPHS,
        StableRow,
        TopRow,
        against_photos,
        class_scores,
        half_stable,
        stable_rows,
        top_rows,
    )
    from diffprobe.analyses.classification.figures import ClassExample, class_curves, class_example
    from diffprobe.analyses.classification.report import class_lines, class_scalars, classification_page
    from diffprobe.probes.summaries import summarise
    from diffprobe.probes.tables import Score, Summary
    from diffprobe.report.page.writing import write_page
    from diffprobe.report.style import save_figure
    from diffprobe.runs.environment import reproduce
    from diffprobe.tables import write_rows
    from diffprobe.writing import write_text

    model, seed = task.backbone.name, task.settings.seed
    scores, top = class_scores(watched, model, task.classifier.name), top_rows(watched, model, task.classifier)
    if photos is not None:
        scores += class_scores(photos, model, task.classifier.name, PHOTOGRAPHS)
        top += top_rows(photos, model, task.classifier)
    summaries = summarise(scores)
    stable = stable_rows(watched, task.prompts, model, task.classifier)
    half = half_stable(watched)
    difference = against_photos(watched, photos) if photos is not None else None
    tables = {"scores": (Score, scores), "summary": (Summary, summaries), "top": (TopRow, top)}
    tables["stable"] = (StableRow, stable)
    files = [folder / f"{name}.csv" for name in tables]
    for path, (kind, rows) in zip(files, tables.values(), strict=True):
        write_rows(path, kind, rows)
    examples = [
        ClassExample(
            prompt.text,
            tuple(task.steps),
            film.permute(0, 2, 3, 1).numpy(),
            {step: [row for row in top if (row.image, row.step) == (prompt.name, step)] for step in task.steps},
        )
        for prompt, film in zip(task.prompts, watched.films, strict=False)
    ]
    called = task.photos.called if task.photos else ""
    drawn = {"class_over_steps": class_curves(summaries, half, called)}
    drawn |= {f"class_example_{at}": class_example(example) for at, example in enumerate(examples, 1)}
    figures = {name: save_figure(figure, folder / "figures", name)["png"] for name, figure in drawn.items()}
    lines = class_lines(summaries, half, difference, called)
    write_text(folder / "report.txt", "".join(f"- {line}\n" for line in lines))
    page = classification_page(plain, summaries, stable, lines, figures, examples)
    write_page(folder, replace(page, reproduce=reproduce(folder, {"seed": seed})))
    logged = {"summary": summaries, "stable": stable}
    tracker.log_tables(logged, figures, {"tables": files}, class_scalars(summaries))
    for line in lines:
        task.tell(f"- {line}")
    task.tell(tracker.describe())

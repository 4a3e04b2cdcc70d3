"""The study of classes: `analyze.py analysis=classification`, from a configuration to a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from diffprobe.cli.analysis_schema import AnalysisJobSettings, check_analysis
from diffprobe.cli.errors import job_errors
from diffprobe.cli.running import Run, carry_out
from diffprobe.cli.schema import chosen_steps
from diffprobe.errors import UserError
from diffprobe.parts import make
from diffprobe.ranges import Folder

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.analyses.classification.classes import Watched
    from diffprobe.analyses.classification.photos import Photos
    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers.classifier import Classifier


@dataclass(frozen=True)
class Classification:
    """From which step on a classifier sees, in the decoded image, what the prompt asks for.

    Attributes:
        classes: regular expression -> class of the prompts that it is found in; other prompts name their class.
        photos: real photos to hold the images against: 'auto', a folder, a list of them, or None.
    """

    classes: dict[str, str] | None = None
    photos: Folder | None = "auto"


@job_errors
def run(config: DictConfig) -> None:
    """Runs the analysis that `config` asks for, see `carry_out`."""
    carry_out(config, check_analysis, _prepare, _classify)


def _classify(task: _Task, run: Run[AnalysisJobSettings]) -> int:
    from diffprobe.analyses.classification.report import report
    from diffprobe.report.publish import publish

    generated, photos = _work(task)
    real_images = task.photos.called if task.photos else ""
    model = task.backbone.name
    publish(report(model, task.classifier, task.prompts, task.steps, generated, photos, real_images), run)
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
    classifier = make(settings.classifier)
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

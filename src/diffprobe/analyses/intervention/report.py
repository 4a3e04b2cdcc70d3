"""Runs an intervention and leaves its run folder: tables, figures, an animation, the probes, a tracked run.

The page of an intervention: does the image follow the edit?

How much of its prompt a picture of the pocket world shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from diffprobe.pocket.networks import load_classifier
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.report.html.asked import asked
from diffprobe.report.page.page import Page, captioned

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from diffprobe.analyses.intervention.analysis import Task
    from diffprobe.analyses.intervention.figures import EditedExample
    from diffprobe.analyses.intervention.trials import InterventionFindings, Pictured
    from diffprobe.cli.analysis_schema import AnalysisJobSettings
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.report.tracking import Tracker


TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def intervention_page(
    config: Mapping[str, Any], found: InterventionFindings, verdict: Sequence[str], figures: Mapping[str, Path]
) -> Page:
    """All but how to reproduce it."""
    return Page(
        title=f"Intervening in {config['model']['path']}",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={"gains": found.gains, "scores": found.summaries},
        figures=captioned(figures),
    )


BATCH = 64
_OBJECT = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")


class PromptAgreement:
    """The share of the objects that a prompt names, by colour and shape, that the pocket classifier sees somewhere."""

    def __init__(self) -> None:
        self.network = load_classifier()

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Images [images, 3, 64, 64] in [0, 1] -> [images]; NaN where the prompt names no object of that world."""
        seen = [objects for batch in images.split(BATCH) for objects in self._objects(batch.float().cpu())]
        return torch.tensor([_share(prompt, there) for prompt, there in zip(prompts, seen, strict=True)])

    def _objects(self, images: Tensor) -> list[list[tuple[str, str]]]:
        colours, shapes = (logits.argmax(-1).tolist() for logits in self.network(images))
        return [
            [(COLOURS[c], SHAPES[s]) for c, s in zip(*image, strict=True) if c < len(COLOURS) and s < len(SHAPES)]
            for image in zip(colours, shapes, strict=True)
        ]


def _share(prompt: str, seen: list[tuple[str, str]]) -> float:
    named, left = _OBJECT.findall(prompt), list(seen)
    if not named:
        return float("nan")
    found = 0
    for item in named:
        if item in left:
            left.remove(item)
            found += 1
    return found / len(named)


def leave(
    task: Task,
    bank: ProbeBank,
    settings: AnalysisJobSettings,
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> int:
    """Runs the study, writes the run folder, prints the closing table, hands all to the tracker.

    Returns:
        Network evaluations.
    """
    from diffprobe.analyses.intervention.figures import intervention_grid, intervention_scores
    from diffprobe.analyses.intervention.findings import intervention_lines, intervention_text, print_intervention
    from diffprobe.analyses.intervention.tables import InterventionGain, InterventionScore, InterventionSummary
    from diffprobe.analyses.intervention.trials import Running, study_intervention
    from diffprobe.probes.storage import save_bank
    from diffprobe.report.page.writing import write_page
    from diffprobe.report.style import save_figure
    from diffprobe.runs.environment import reproduce
    from diffprobe.tables import write_rows
    from diffprobe.writing import write_text

    running = Running(
        batch_size=settings.features.batch_size,
        sampling_steps=settings.steps.sampling,
        shown=2 * settings.report.examples,
        agreement=_agreement(settings),
        tell=console.print,
    )
    found = study_intervention(
        task.backbone, task.prompts, task.labeler, bank, task.editings, task.targets, running, settings.seed
    )
    tables = {
        "scores": (InterventionScore, found.scores),
        "summary": (InterventionSummary, found.summaries),
        "gains": (InterventionGain, found.gains),
    }
    for name, (kind, rows) in tables.items():
        write_rows(folder / f"{name}.csv", kind, rows)
    probes = save_bank(bank, folder / "probes")
    item = bank.properties[settings.property.names[0]]
    figures = {"intervention_scores": intervention_scores(found.summaries, item.headline)}
    if found.pictured:
        examples = [_example(each) for each in found.pictured]
        figures["intervention_examples"] = intervention_grid(examples, item.name)
    pictures = {name: save_figure(figure, folder / "figures", name)["png"] for name, figure in figures.items()}
    animation, moving = _animate(task, bank, found, settings, folder, console)
    write_text(folder / "report.txt", intervention_text(found.summaries, found.gains))
    config: Any = OmegaConf.to_container(settings, resolve=True)
    page = intervention_page(config, found, intervention_lines(found.summaries, found.gains), pictures)
    write_page(folder, replace(page, reproduce=reproduce(folder, {"seed": settings.seed})))
    files = {"tables": [folder / f"{name}.csv" for name in tables], "probes": probes}
    if animation:
        pictures["intervention"] = animation["gif"]
    tracker.log_tables({name: rows for name, (_, rows) in tables.items()}, pictures, files)
    print_intervention(found.summaries, found.gains, console)
    console.print(tracker.describe(), soft_wrap=True)
    return found.evaluations + moving


def _agreement(settings: AnalysisJobSettings):
    """How much of a prompt is seen, where there is a classifier that knows: for the built-in model alone."""
    if settings.model.path != "pocket":
        return None

    return PromptAgreement()


def _animate(
    task: Task,
    bank: ProbeBank,
    found: InterventionFindings,
    settings: AnalysisJobSettings,
    folder: Path,
    console: Console,
) -> tuple[dict[str, Path], int]:
    """Writes the animation of the first image, its map moved step by step: files, and the evaluations that it took."""
    import torch

    from diffprobe.analyses.intervention.edits import intervene
    from diffprobe.analyses.intervention.figures import animation_frames
    from diffprobe.analyses.intervention.target_maps import move
    from diffprobe.backbone.finite import naming
    from diffprobe.report.animation import write_animation

    frames = settings.analysis.frames
    first = next((each for each in found.pictured if each.move is not None), None)
    if frames < 2 or first is None or first.move is None:
        return {}, 0
    console.print(f"generating {frames} frames of an animation")
    name = settings.property.names[0]
    binary = bank.properties[name].binary
    parts = [first.move.share(frame / (frames - 1)) for frame in range(frames)]
    targets = torch.stack([move(first.label, part, mask=binary) for part in parts])
    images = []
    for some in targets.split(settings.features.batch_size):
        with naming([f"{first.prompt.name} in the animation"] * len(some)):
            images.append(
                intervene(
                    task.backbone,
                    [first.prompt.text] * len(some),
                    [first.prompt.seed] * len(some),
                    some,
                    bank,
                    task.editings[0],
                    covariances=found.covariances,
                    sampling_steps=settings.steps.sampling,
                )
            )
    shown = animation_frames(_picture(torch.cat(images)), targets.numpy(), name)
    return write_animation(folder / "figures", "intervention", shown), frames * settings.steps.sampling


def _example(pictured: Pictured) -> EditedExample:
    from diffprobe.analyses.intervention.figures import EditedExample

    return EditedExample(
        original=_picture(pictured.original),
        label=pictured.label.numpy(),
        target=pictured.target.numpy(),
        edited={method: _picture(image) for method, image in pictured.edited.items()},
        edited_labels={method: maps.numpy() for method, maps in pictured.edited_labels.items()},
    )


def _picture(images: Tensor) -> np.ndarray:
    """[..., 3, H, W] -> [..., H, W, 3]."""
    return images.movedim(-3, -1).numpy()

"""The learning curve that `report.learning_curve` asks for: scores over the number of training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.doors.schema import ProbingSettings
    from diffprobe.probes.splits import Split
    from diffprobe.report.choices import Choice
    from diffprobe.studies.learning_curve import LearningPoint
    from diffprobe.studies.question import Findings, Question


def check_curve(settings: ProbingSettings, split: Split) -> None:
    """Raises UserError for numbers of training images that there are not, or where no activations are kept."""
    from diffprobe.studies.learning_curve import check_sizes

    sizes = list(settings.report.learning_curve)
    if sizes and settings.features.store == "none":
        raise UserError(
            "report.learning_curve trains again, which features=none cannot: choose features=memory or disk"
        )
    if sizes:
        check_sizes(sizes, len(split.train))


def learning_points(
    question: Question, findings: Findings, choices: Sequence[Choice], settings: ProbingSettings, folder: Path
) -> list[LearningPoint]:
    """Trains the best layers' probes of the last step on ever more images, and writes learning_curve.csv."""
    from diffprobe.studies.learning_curve import learning_curve, write_learning_curve
    from diffprobe.studies.solvers import fit_bank

    sizes = list(settings.report.learning_curve)
    if not sizes or findings.extraction is None or findings.targets is None:
        return []
    best = {choice.best for choice in choices}
    narrow = replace(
        question,
        layers=[layer for layer in question.layers if layer.name in best],
        groups=[group for group in question.groups if group.name in best],
    )
    needed = [layer.name for layer in narrow.recorded]
    curve = learning_curve(
        narrow.read(findings.extraction.activations.select(needed, question.steps[-1:])),
        findings.targets,
        findings.split,
        question.properties,
        sizes,
        model=choices[0].model,
        recipe=question.recipe,
        fit=partial(fit_bank, images=findings.extraction.extras["image"]),
        threshold=question.threshold,
        seed=question.seed,
    )
    write_learning_curve(folder / "learning_curve.csv", curve.points)
    return curve.points

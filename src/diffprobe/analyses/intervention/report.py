"""What is reported of an intervention: does the image follow the edit?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from diffprobe.analyses.intervention.figures import (
    EditedExample,
    animation_frames,
    intervention_grid,
    intervention_scores,
)
from diffprobe.analyses.intervention.findings import intervention_lines, intervention_table
from diffprobe.analyses.intervention.tables import InterventionGain, InterventionScore, InterventionSummary
from diffprobe.probes.storage import save_bank
from diffprobe.report.report import Animation, Plot, Report, Table

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.analyses.intervention.trials import InterventionExample, InterventionResults
    from diffprobe.probes.bank import ProbeBank

TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def report(
    model: str, name: str, bank: ProbeBank, found: InterventionResults, animation: tuple[Tensor, Tensor] | None = None
) -> Report:
    """Whether images follow when the probes of the property `name` are made to report another map.

    Args:
        bank: the probes.
        animation: images [frames, 3, H, W] and the maps that they were made for, [frames, H, W].
    """
    figures: dict[str, Plot | Animation] = {
        "intervention_scores": Plot(
            partial(intervention_scores, found.summaries, bank.properties[name].headline),
            "How well the map of the new image agrees with the target, with 95 % intervals: edited, edited at random, "
            "and not edited.",
        )
    }
    if found.examples:
        figures["intervention_examples"] = Plot(
            partial(intervention_grid, [_example(each) for each in found.examples], name),
            "Images, their maps, the maps asked for, and what came of it.",
        )
    if animation is not None:
        images, targets = animation
        figures["intervention"] = Animation(animation_frames(_picture(images), targets.numpy(), name))
    return Report(
        title=f"Intervening in {model}",
        findings=intervention_lines(found.summaries, found.gains),
        topics=TOPICS,
        tables={
            "closing": intervention_table(found.summaries),
            "gains": Table.of(InterventionGain, found.gains),
            "summary": Table.of(InterventionSummary, found.summaries, title="scores"),
            "scores": Table.of(InterventionScore, found.scores, show=["csv", "tracker"]),
        },
        figures=figures,
        artifacts={"probes": partial(save_bank, bank)},
    )


def _example(pictured: InterventionExample) -> EditedExample:
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

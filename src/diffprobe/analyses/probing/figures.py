"""The figures of a probing study, made from its score tables alone (pictures also from its examples)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from diffprobe.analyses.probing.curves import learning_curves, scores_over_steps
from diffprobe.report.choices import LayerChoice, grouped
from diffprobe.report.example import PredictionExample
from diffprobe.report.grid import prediction_grid
from diffprobe.report.heatmap import layer_step_heatmap
from diffprobe.report.report import Plot

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer


def probing_figures(
    summaries: pd.DataFrame,
    choices: Sequence[LayerChoice],
    layers: Sequence[Layer] = (),
    examples: Sequence[PredictionExample] = (),
    learning: pd.DataFrame | None = None,
) -> dict[str, Plot]:
    """Score curves, one heat map a property, learning curves and one grid an example.

    `layers` gives the heat maps their order and resolutions; without it both are read off the names. Several models or
    probes have figures of their own, whose names say which.
    """
    figures: dict[str, Plot] = {}
    for group, members in grouped(choices).items():
        suffix = "".join(f"_{part}" for part in group.split(", ") if part).replace("/", "-")
        figures[f"scores_over_steps{suffix}"] = Plot(
            partial(scores_over_steps, summaries, members),
            "Scores on test images over denoising steps with 95 % intervals, of the best layer (chosen on validation "
            "images), the papers' layer and the controls. The vertical line is where the best layer has come near its "
            "last score.",
        )
        for choice in members:
            figures[f"layers_{choice.property}{suffix}"] = Plot(
                partial(layer_step_heatmap, summaries, choice, layers=layers),
                "Scores on test images of every layer and step.",
            )
        own = {(choice.model, choice.probe) for choice in members}
        if learning is not None and own & set(learning[["model", "probe"]].itertuples(index=False, name=None)):
            figures[f"learning_curves{suffix}"] = Plot(
                partial(learning_curves, learning, members, summaries),
                "Scores on test images over the number of images that probes were trained on.",
            )
    for number, example in enumerate(examples, 1):
        figures[f"example_{number}"] = Plot(
            partial(prediction_grid, example),
            "One test image as it is denoised, and what the best layer's probes see in its activations.",
        )
    return figures

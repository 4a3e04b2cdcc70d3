"""The figures and tables of a run folder, made from its score tables alone (pictures also from its examples)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from diffprobe.report.choices import Choice, grouped
from diffprobe.report.curves import learning_curves, scores_over_steps
from diffprobe.report.example import PredictionExample
from diffprobe.report.grid import prediction_grid
from diffprobe.report.heatmap import layer_step_heatmap
from diffprobe.report.style import save_figure

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer


def draw_figures(
    folder: Path,
    summaries: pd.DataFrame,
    choices: Sequence[Choice],
    layers: Sequence[Layer] = (),
    examples: Sequence[PredictionExample] = (),
    learning: pd.DataFrame | None = None,
) -> dict[str, Path]:
    """Writes score curves, one heat map a property, learning curves and one grid an example, as PNG and PDF.

    `layers` gives the heat maps their order and resolutions; without it both are read off the names. Several models or
    probes have figures of their own, whose names say which.

    Returns:
        The PNG files by figure name.
    """
    figures = {}
    for group, members in grouped(choices).items():
        suffix = "".join(f"_{part}" for part in group.split(", ") if part).replace("/", "-")
        figures[f"scores_over_steps{suffix}"] = scores_over_steps(summaries, members)
        for choice in members:
            figures[f"layers_{choice.property}{suffix}"] = layer_step_heatmap(summaries, choice, layers=layers)
        own = {(choice.model, choice.probe) for choice in members}
        if learning is not None and own & set(learning[["model", "probe"]].itertuples(index=False, name=None)):
            figures[f"learning_curves{suffix}"] = learning_curves(learning, members, summaries)
    figures |= {f"example_{number}": prediction_grid(example) for number, example in enumerate(examples, 1)}
    return {name: save_figure(figure, folder, name)["png"] for name, figure in figures.items()}

"""The figures of a run folder, drawn from its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.report.choices import Choice
from diffprobe.report.example import PredictionExample
from diffprobe.report.figures import layer_step_heatmap, scores_over_steps
from diffprobe.report.grid import prediction_grid
from diffprobe.report.style import save_figure

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.tables import Summary


def draw_figures(
    folder: Path,
    summaries: Sequence[Summary],
    choices: Sequence[Choice],
    layers: Sequence[Layer] = (),
    examples: Sequence[PredictionExample] = (),
) -> dict[str, Path]:
    """Writes score curves, one heat map a property and one grid an example into `folder`, as PNG and PDF.

    `layers` gives the heat maps their order and resolutions; without it both are read off the names.

    Returns:
        The PNG files by figure name.
    """
    figures = {"scores_over_steps": scores_over_steps(summaries, choices)}
    for choice in choices:
        figures[f"layers_{choice.property}"] = layer_step_heatmap(
            summaries, choice.property, choice.metric, layers=layers
        )
    figures |= {f"example_{number}": prediction_grid(example) for number, example in enumerate(examples, 1)}
    return {name: save_figure(figure, folder, name)["png"] for name, figure in figures.items()}

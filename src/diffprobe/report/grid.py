"""The papers' figure 1: what the image and the probes show of one image as it is denoised."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.report.example import PredictionExample
from diffprobe.report.style import COLOUR_MAPS, DOUBLE_COLUMN, VERMILION, style

PAPER_STEPS = (0, 1, 2, 4, 7, 10, 14)  # steps 1, 2, 3, 5, 8, 11, 15 of 15


@style()
def prediction_grid(example: PredictionExample, shown: Sequence[int] | None = None) -> Figure:
    """Columns are steps, then the final image over its labels; rows are the decoded image and one per property.

    Args:
        shown: 0-based steps to show; by default the papers' among those there are, or evenly spread ones.

    Raises:
        UserError: a step to be shown is not in the example.
    """
    steps = list(shown if shown is not None else default_steps(example.steps))
    missing = [step for step in steps if step not in example.steps]
    if missing:
        raise UserError(f"steps {missing} are not among those of '{example.title}': {list(example.steps)}")
    rows = [example.steps.index(step) for step in steps]
    figure, panels = grid_panels(1 + len(example.predictions), len(steps))
    figure.suptitle(fill(example.title, 100), parse_math=False)

    for axes, row, step in zip(panels[0], rows, steps, strict=False):
        axes.set_title(f"step {step + 1}")
        axes.imshow(np.clip(example.images[row], 0, 1))
    panels[0][-1].imshow(np.clip(example.final, 0, 1))
    name_right(panels[0][-1], "final image")
    panels[0][0].set_ylabel("decoded image")
    for line, (name, maps) in zip(panels[1:], example.predictions.items(), strict=True):
        draw_property(line, name, [maps[row] for row in rows], example.labels[name])
    return figure


def default_steps(steps: Sequence[int]) -> list[int]:
    """The papers' steps if all of them are among the steps, else evenly spread ones."""
    if set(PAPER_STEPS) <= set(steps) and steps[-1] == PAPER_STEPS[-1]:
        return list(PAPER_STEPS)
    spread = np.linspace(0, len(steps) - 1, min(len(steps), len(PAPER_STEPS)))
    return [steps[round(place)] for place in spread]


def grid_panels(rows: int, steps: int) -> tuple[Figure, list[list[Axes]]]:
    """[rows][steps + 1] axes without ticks; a narrow gap stands before the last column."""
    side = min(1.2, DOUBLE_COLUMN / (steps + 1.6))
    # 'compressed' is the constrained layout for grids of images of fixed shape
    figure = Figure(figsize=(side * (steps + 1.6), rows * side + 0.5), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[union-attr]
    places = figure.add_gridspec(rows, steps + 2, width_ratios=[1] * steps + [0.12, 1])
    columns = [*range(steps), steps + 1]
    panels = [[figure.add_subplot(places[row, column]) for column in columns] for row in range(rows)]
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, panels


def draw_property(panels: Sequence[Axes], name: str, maps: Sequence[np.ndarray], label: np.ndarray) -> None:
    """Predictions and, last, the label, all in one range of colours."""
    low, high = (0.0, 1.0) if name == "saliency" else np.percentile(label, [2, 98])
    height, width = label.shape
    for axes, values in zip(panels, [*maps, label], strict=True):
        axes.imshow(
            values, cmap=COLOUR_MAPS.get(name, "viridis"), vmin=low, vmax=high,
            extent=(0, width, height, 0), interpolation="nearest",
        )  # fmt: skip
    panels[0].set_ylabel(name)
    name_right(panels[-1], "label")
    if name == "saliency" and 0 < label.mean() < 1:
        for axes in panels[:-1]:
            axes.contour(
                np.arange(width) + 0.5, np.arange(height) + 0.5, label, [0.5], colors=VERMILION, linewidths=0.7
            )


def name_right(axes: Axes, name: str) -> None:
    """Writes the name of a row at its right end."""
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(name, rotation=270, va="bottom")

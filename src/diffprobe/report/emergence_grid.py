"""The papers' seven-row figure: an unfinished image, and what a probe and an image model see of it at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.report.example import PredictionExample
from diffprobe.report.grid import default_steps, draw_property, grid_panels, name_right
from diffprobe.report.style import style

WIDE = 8  # steps; from here on only the first has more than its number written over it
NAMES = 0.95  # inches that the names on the left take


@dataclass(frozen=True)
class EmergenceExample:
    """One image: with the probes' predictions, and beside them the image model's maps of the decoded images.

    image_models: property -> [steps, H, W], in the units of the labels.
    """

    probes: PredictionExample
    image_models: Mapping[str, np.ndarray]


@style()
def emergence_grid(example: EmergenceExample, shown: Sequence[int] | None = None) -> Figure:
    """Columns are steps, then the finished image over its labels; rows are the decoded image and, for each property,
    the probe and the image model.

    Args:
        shown: 0-based steps to show; by default the papers' among those there are, or evenly spread ones.
    """
    probes = example.probes
    steps = list(default_steps(probes.steps) if shown is None else shown)
    rows = [probes.steps.index(step) for step in steps]
    figure, panels = grid_panels(1 + 2 * len(probes.predictions), len(steps))
    side = (figure.get_figwidth() - NAMES) / (len(steps) + 1.6)
    figure.set_figheight(len(panels) * side * 1.08 + 0.5)
    figure.suptitle(fill(probes.title, 100), parse_math=False)
    for axes, row, step in zip(panels[0], rows, steps, strict=False):
        axes.set_title(f"{step + 1}" if row != rows[0] and len(steps) > WIDE else f"step {step + 1}")
        axes.imshow(np.clip(probes.images[row], 0, 1))
    panels[0][-1].imshow(np.clip(probes.final, 0, 1))
    name_right(panels[0][-1], "final")
    _name_left(panels[0][0], "decoded image")
    lines = iter(panels[1:])
    for name, predicted in probes.predictions.items():
        for who, maps in (("probe", predicted), ("image model", example.image_models[name])):
            line = next(lines)
            draw_property(line, name, [maps[row] for row in rows], probes.labels[name])
            _name_left(line[0], f"{name}\n{who}")
    return figure


def _name_left(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center")

"""How far objects drift from themselves when their image is changed, and in video from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffprobe.errors import UserError
from diffprobe.report.numbers import is_number
from diffprobe.report.report import Plot
from diffprobe.report.style import (
    DOUBLE_COLUMN,
    SET_LABELS,
    SET_STYLES,
    SINGLE_COLUMN,
    draw_curve,
    draw_level,
    shared_legend,
    style,
)

if TYPE_CHECKING:
    from diffprobe.prototypes.tables import DriftRow

CHANGES = {  # in the order of panels: its name, and what the strength is
    "rotation": ("rotation", "degrees"),
    "flip": ("flip", ""),
    "scale": ("scale", "factor"),
    "padding": ("padding", "share of the side"),
    "crop": ("crop", "share kept"),
    "shift": ("shift", "share of the side"),
    "strength": ("noised and denoised", "strength of noise"),
    "denoising_steps": ("denoised in steps", "number of steps"),
}
FRAME_GAP = "frame_gap"
REIDENTIFICATION = "reidentification"
ABREAST = 3


@style()
def drift_curves(rows: Sequence[DriftRow]) -> Figure:
    """One panel a change: mean distance of an object to its changed self over strength, with 95 % intervals over
    images, beside the means of the sets of pairs. The rows are of one model, layer, step and measure.

    Raises:
        UserError: there is no row of a change to an image.
    """
    changes = [change for change in CHANGES if any(row.change == change for row in rows)]
    if not changes:
        raise UserError(f"no distances under a change of the image to draw; the changes are {', '.join(CHANGES)}")
    lines, columns = -(-len(changes) // ABREAST), min(ABREAST, len(changes))
    width = SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN * columns / ABREAST
    figure = Figure(figsize=(width, 1.8 * lines + 0.2), layout="constrained")
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False, sharey=True))
    for axes, change in zip(panels, changes, strict=False):
        _distances(axes, [row for row in rows if row.change == change])
        title, unit = CHANGES[change]
        axes.set_title(title)
        axes.set_xlabel(unit)
    for axes in panels[len(changes) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel(_distance_label(rows))
    shared_legend(figure, columns=1 if columns == 1 else 2)
    return figure


@style()
def video_curves(rows: Sequence[DriftRow]) -> Figure:
    """Over the gap between two frames: distance of an instance to itself and to others, and in which share of cases
    the nearest instance is the same one. The rows are of one model, layer, step and measure.

    Raises:
        UserError: there is no row over the frame gap.
    """
    rows = [row for row in rows if row.change == FRAME_GAP]
    if not rows:
        raise UserError("no distances over the gap between frames to draw; they come from video")
    accuracy = [row for row in rows if row.set == REIDENTIFICATION]
    figure = Figure(figsize=(DOUBLE_COLUMN if accuracy else SINGLE_COLUMN, 2.3), layout="constrained")
    panels = np.ravel(figure.subplots(1, 2 if accuracy else 1))
    _distances(panels[0], [row for row in rows if row.set != REIDENTIFICATION])
    panels[0].set_ylabel(_distance_label(rows))
    if accuracy:
        _curve(panels[1], accuracy, "", "self")
        panels[1].set_ylim(0, 1.02)
        panels[1].set_ylabel("re-identification accuracy")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("gap between frames", fontsize=8)
    shared_legend(figure, columns=2)
    return figure


def _distances(axes: Axes, rows: Sequence[DriftRow]) -> None:
    """The curve of every set; a set that is the same at every strength is a level."""
    for name, label in SET_LABELS.items():
        own = sorted((row for row in rows if row.set == name and is_number(row.mean)), key=lambda row: row.strength)
        if name != "self" and len({row.mean for row in own}) == 1:
            draw_level(axes, own[0], label, SET_STYLES[name])
        elif own:
            _curve(axes, own, label, name)
    strengths = sorted({row.strength for row in rows})
    if len(strengths) == 1:
        axes.set_xticks(strengths, [""])
    axes.set_ylim(bottom=0)


def _curve(axes: Axes, rows: Sequence[DriftRow], label: str, name: str) -> None:
    look = SET_STYLES[name]
    rows = sorted(rows, key=lambda row: row.strength)
    draw_curve(axes, [row.strength for row in rows], rows, label, look)
    if len(rows) == 1 and is_number(rows[0].low) and is_number(rows[0].high):  # a band of no width is not seen
        axes.vlines(rows[0].strength, rows[0].low, rows[0].high, color=look.colour, linewidth=1)


def _distance_label(rows: Sequence[DriftRow]) -> str:
    return f"{rows[0].measure.replace('_', ' ')} distance"


def drift_figures(rows: Sequence[DriftRow]) -> dict[str, Plot]:
    """drift_.. and video_.. of each model, layer, step and measure, which the names tell."""
    figures = {}
    for key in dict.fromkeys((row.model, row.layer, row.step, row.measure) for row in rows):
        own = [row for row in rows if (row.model, row.layer, row.step, row.measure) == key]
        model, layer, step, measure = key
        name = f"{model}_{layer}_step{step + 1}_{measure}".replace("/", "-")
        if any(row.change in CHANGES for row in own):
            caption = "How far objects move when their image changes, beside other pairs of objects."
            figures[f"drift_{name}"] = Plot(partial(drift_curves, own), caption)
        if any(row.change == FRAME_GAP for row in own):
            caption = "How far objects of a video move from frame to frame, beside other instances."
            figures[f"video_{name}"] = Plot(partial(video_curves, own), caption)
    return figures

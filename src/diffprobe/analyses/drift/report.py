"""How far objects drift from themselves: sentences, curves over strengths and frame gaps, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffprobe.analyses.drift.drift import FRAME_GAP, REIDENTIFICATION, SELF, DriftRow
from diffprobe.analyses.objects import object_report
from diffprobe.errors import UserError
from diffprobe.report.report import Plot, Report, Table
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
from diffprobe.report.wording import interval, is_number, place_name, rounded
from diffprobe.statistics.differences import well_covered

if TYPE_CHECKING:
    from diffprobe.analyses.objects import CollectedPrototypes, ObjectTask

PAIRS_IN_WORDS = {
    "scsi": "two objects of one class in one image",
    "scdi": "two objects of one class in different images",
    "dcsi": "two objects of different classes in one image",
    "dcdi": "two objects of different classes in different images",
    "other": "two different instances",
}
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
PER_ROW = 3  # panels


def report(kind: str, task: ObjectTask, result: CollectedPrototypes, rows: Sequence[DriftRow]) -> Report:
    """How far objects move, beside other pairs of objects. kind: of analysis, for the title."""
    tables = {"drift": Table.of(DriftRow, rows)}
    return object_report(kind, task, result, tables, findings=drift_lines(rows), figures=drift_figures(rows))


def _by_place(rows: Sequence[DriftRow]) -> dict[tuple[str, str, int, str], list[DriftRow]]:
    """The rows of each model, layer, step and measure."""
    found: dict[tuple[str, str, int, str], list[DriftRow]] = {}
    for row in rows:
        found.setdefault((row.model, row.layer, row.step, row.measure), []).append(row)
    return found


def drift_lines(rows: Sequence[DriftRow]) -> list[str]:
    """For each model, layer, step and measure one sentence a change, and one on re-identification in video."""
    lines = []
    for (model, layer, step, measure), own in _by_place(rows).items():
        found = [_change_line([row for row in own if row.change == change]) for change in (*CHANGES, FRAME_GAP)]
        found.append(_reidentification_line([row for row in own if row.set == REIDENTIFICATION]))
        lines += [f"{place_name(layer, step)} ({model}, {measure}): {line}" for line in found if line]
    return lines


def _change_line(rows: Sequence[DriftRow]) -> str:
    """Where objects drift furthest, and the pairs most often nearer to each other than an object to itself."""
    drifts = well_covered([row for row in rows if row.set == SELF and is_number(row.mean)], lambda row: row.n)
    if not drifts:
        return ""
    worst = max(drifts, key=lambda row: row.mean or 0.0)
    what = CHANGES[worst.change][0] if worst.change in CHANGES else "gap between frames"
    line = f"{what}: objects move most at {worst.strength:g}, by {interval(worst.mean, worst.low, worst.high)}"
    others = [row for row in rows if is_number(row.auc) and row.set in PAIRS_IN_WORDS]
    if not others:
        return f"{line}."
    covered = {row.strength for row in drifts}
    hardest = min([row for row in others if row.strength in covered] or others, key=lambda row: row.auc or 0.0)
    return (
        f"{line}; an object stays nearer to itself than {PAIRS_IN_WORDS[hardest.set]} are to each other in at least "
        f"{rounded(hardest.auc)} of cases (lowest at {hardest.strength:g})."
    )


def _reidentification_line(rows: Sequence[DriftRow]) -> str:
    measured = sorted((row for row in rows if is_number(row.mean)), key=lambda row: row.strength)
    if not measured:
        return ""
    (first, near), (last, far) = [(row, interval(row.mean, row.low, row.high)) for row in (measured[0], measured[-1])]
    line = f"at a gap of {first.strength:g} between frames the nearest instance is the same one in {near} of cases"
    return f"{line}." if first is last else f"{line}, at {last.strength:g} in {far}."


def drift_figures(rows: Sequence[DriftRow]) -> dict[str, Plot]:
    """drift_.. and video_.. of each model, layer, step and measure, which the names tell."""
    figures = {}
    for (model, layer, step, measure), own in _by_place(rows).items():
        name = f"{model}_{layer}_step{step + 1}_{measure}".replace("/", "-")
        if any(row.change in CHANGES for row in own):
            caption = "How far objects move when their image changes, beside other pairs of objects."
            figures[f"drift_{name}"] = Plot(partial(drift_curves, own), caption)
        if any(row.change == FRAME_GAP for row in own):
            caption = "How far objects of a video move from frame to frame, beside other instances."
            figures[f"video_{name}"] = Plot(partial(video_curves, own), caption)
    return figures


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
    lines, columns = -(-len(changes) // PER_ROW), min(PER_ROW, len(changes))
    width = SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN * columns / PER_ROW
    figure = Figure(figsize=(width, 1.8 * lines + 0.2), layout="constrained")
    panels = np.ravel(figure.subplots(lines, columns, squeeze=False, sharey=True))
    for axes, change in zip(panels, changes, strict=False):
        _draw_distances(axes, [row for row in rows if row.change == change])
        title, unit = CHANGES[change]
        axes.set(title=title, xlabel=unit)
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
    _draw_distances(panels[0], [row for row in rows if row.set != REIDENTIFICATION])
    panels[0].set_ylabel(_distance_label(rows))
    if accuracy:
        _draw_curve(panels[1], accuracy, "", SELF)
        panels[1].set(ylim=(0, 1.02), ylabel="re-identification accuracy")
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("gap between frames", fontsize=8)
    shared_legend(figure, columns=2)
    return figure


def _draw_distances(axes: Axes, rows: Sequence[DriftRow]) -> None:
    """The curve of every set; a set that is the same at every strength is a level."""
    for name, label in SET_LABELS.items():
        own = [row for row in rows if row.set == name and is_number(row.mean)]
        if name != SELF and len({row.mean for row in own}) == 1:
            draw_level(axes, own[0], label, SET_STYLES[name])
        elif own:
            _draw_curve(axes, own, label, name)
    strengths = sorted({row.strength for row in rows})
    if len(strengths) == 1:
        axes.set_xticks(strengths, [""])
    axes.set_ylim(bottom=0)


def _draw_curve(axes: Axes, rows: Sequence[DriftRow], label: str, name: str) -> None:
    rows = sorted(rows, key=lambda row: row.strength)
    draw_curve(axes, [row.strength for row in rows], rows, label, SET_STYLES[name])
    if len(rows) == 1 and is_number(rows[0].low) and is_number(rows[0].high):  # a band of no width is not seen
        axes.vlines(rows[0].strength, rows[0].low, rows[0].high, color=SET_STYLES[name].colour, linewidth=1)


def _distance_label(rows: Sequence[DriftRow]) -> str:
    return f"{rows[0].measure.replace('_', ' ')} distance"

"""What is reported of objects under changes of their image, under denoising, and in video.

Plain sentences about how well objects keep their identity when their image changes.

How far objects drift from themselves when their image is changed, and in video from frame to frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffprobe.analyses.objects import TOPICS, object_tables
from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import Prototypes, save_prototypes
from diffprobe.prototypes.separation import DriftRow
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
    from diffprobe.analyses.drift.drift import ChangedPrototypes
    from diffprobe.data.objects import Problem
    from diffprobe.prototypes.separation import DriftRow


WORDS = {
    "scsi": "two objects of one class in one image",
    "scdi": "two objects of one class in different images",
    "dcsi": "two objects of different classes in one image",
    "dcdi": "two objects of different classes in different images",
    "other": "two different instances",
}


def drift_lines(rows: Sequence[DriftRow]) -> list[str]:
    """For each model, layer, step and measure one sentence a change, and one on re-identification in video."""
    lines = []
    for key in dict.fromkeys((row.model, row.layer, row.step, row.measure) for row in rows):
        own = [row for row in rows if (row.model, row.layer, row.step, row.measure) == key]
        where = f"{place_name(own[0].layer, own[0].step)} ({own[0].model}, {own[0].measure})"
        for change in (*CHANGES, FRAME_GAP):
            line = _change_line([row for row in own if row.change == change])
            lines += [f"{where}: {line}"] if line else []
        line = _identity_line([row for row in own if row.set == REIDENTIFICATION])
        lines += [f"{where}: {line}"] if line else []
    return lines


def _change_line(rows: Sequence[DriftRow]) -> str:
    """Where objects drift furthest, and which pairs are then nearest to being confused with them."""
    drifts = [row for row in rows if row.set == "self" and is_number(row.mean)]
    against = [row for row in rows if is_number(row.auc) and row.set in WORDS]
    if not drifts:
        return ""
    worst = max(well_covered(drifts, lambda row: row.n), key=lambda row: row.mean or 0.0)
    what = CHANGES[worst.change][0] if worst.change in CHANGES else "gap between frames"
    line = f"{what}: objects move most at {worst.strength:g}, by {interval(worst.mean, worst.low, worst.high)}"
    if not against:
        return f"{line}."
    covered = {(row.change, row.strength) for row in well_covered(drifts, lambda row: row.n)}
    hardest = min(
        [row for row in against if (row.change, row.strength) in covered] or against, key=lambda row: row.auc or 0.0
    )
    return (
        f"{line}; an object stays nearer to itself than {WORDS[hardest.set]} are to each other in at least "
        f"{rounded(hardest.auc)} of cases (lowest at {hardest.strength:g})."
    )


def _identity_line(rows: Sequence[DriftRow]) -> str:
    measured = sorted((row for row in rows if is_number(row.mean)), key=lambda row: row.strength)
    if not measured:
        return ""
    first, last = measured[0], measured[-1]
    line = f"at a gap of {first.strength:g} between frames the nearest instance is the same one in {_accuracy(first)}"
    return f"{line} of cases." if first is last else f"{line} of cases, at {last.strength:g} in {_accuracy(last)}."


def _accuracy(row: DriftRow) -> str:
    return interval(row.mean, row.low, row.high)


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


def report(
    title: str,
    rows: Sequence[DriftRow],
    prototypes: Prototypes,
    changed: Sequence[ChangedPrototypes] = (),
    problems: Sequence[Problem] = (),
) -> Report:
    """How far objects move, beside other pairs of objects.

    Args:
        prototypes: of the images as they are; `changed` has those after every change.
        problems: what was left out of the images.
    """
    changes = [(each.prototypes, each.change, each.strength) for each in changed]
    return Report(
        title=title,
        findings=drift_lines(rows),
        topics=TOPICS,
        tables={**object_tables(prototypes, problems, changes), "drift": Table.of(DriftRow, rows)},
        figures=drift_figures(rows),
        artifacts={"prototypes": partial(save_prototypes, prototypes)},
    )

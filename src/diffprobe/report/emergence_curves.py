"""Scores of probes and image models over the steps, and when each has emerged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.report.choices import METRIC_NAMES, control_curve, control_name, controls, curve
from diffprobe.report.emergence_verdict import Told
from diffprobe.report.looks import (
    BEST,
    CONTROLS,
    HEADLINE,
    OTHER,
    Look,
    draw_curve,
    draw_level,
    shared_legend,
    spread_ticks,
)
from diffprobe.report.names import short_names
from diffprobe.report.style import DOUBLE_COLUMN, GREY, SINGLE_COLUMN, style
from diffprobe.studies.image_models import IMAGE_MODEL
from diffprobe.studies.leads import COMMON, OWN
from diffprobe.tables import NO_STEP

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary

PROBE_LOOK, IMAGE_MODEL_LOOK = BEST, HEADLINE


@style()
def emergence_curves(summaries: Sequence[Summary], told: Sequence[Told]) -> Figure:
    """One panel a property: test scores of the best layer's probe and of the image model, with 95 % intervals.

    Vertical lines are the steps by which each has reached its share of its own last score, shades behind them their
    intervals; the horizontal line is that share of the probe's last score, a level for both. Other controls that were
    run are curves too.
    """
    width = SINGLE_COLUMN if len(told) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.4 if len(told) == 1 else 2.2), layout="constrained")
    names = short_names(row.layer for row in summaries)
    for axes, one in zip(np.ravel(figure.subplots(1, len(told))), told, strict=True):
        _draw(axes, summaries, one)
        axes.set_title(f"{one.choice.property}: {names[one.choice.best]}")
    figure.supxlabel("denoising step", fontsize=8)
    shared_legend(figure, columns=1 if len(told) == 1 else 3)
    return figure


def _draw(axes: Axes, summaries: Sequence[Summary], one: Told) -> None:
    choice, own = one.choice, one.lead(OWN)
    rows = curve(summaries, choice, choice.best)
    steps = [row.step + 1 for row in rows]
    draw_curve(axes, steps, rows, "probe, on activations", PROBE_LOOK)
    seen = control_curve(summaries, choice, IMAGE_MODEL)
    draw_curve(axes, [row.step + 1 for row in seen], seen, "image model, on the decoded image", IMAGE_MODEL_LOOK)
    for control in controls(summaries, choice):
        if control != IMAGE_MODEL:
            _draw_control(axes, control_curve(summaries, choice, control), control)
    share = f"{100 * own.fraction:g} % of the last score"
    _draw_step(axes, own.probe_step, own.probe_low, own.probe_high, f"probe at {share}", PROBE_LOOK)
    _draw_step(
        axes, own.image_model_step, own.image_model_low, own.image_model_high, f"image model at {share}",
        IMAGE_MODEL_LOOK,
    )  # fmt: skip
    common = one.lead(COMMON).probe_level
    if common is not None:
        axes.axhline(common, color=GREY, linewidth=0.7, linestyle=":", zorder=1, label=f"{share} of the probe")
    axes.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axes.set_xticks(spread_ticks(steps))
    axes.set_ylabel(METRIC_NAMES.get(choice.metric, choice.metric))
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)


def _draw_control(axes: Axes, rows: Sequence[Summary], control: str) -> None:
    look = CONTROLS.get(control, OTHER)
    if rows and rows[0].step == NO_STEP:
        draw_level(axes, rows[0], control_name(control), look)
    else:
        draw_curve(axes, [row.step + 1 for row in rows], rows, control_name(control), look)


def _draw_step(axes: Axes, step: int, low: int, high: int, label: str, look: Look) -> None:
    """A vertical line at a step and its interval as a shade; an end that is not reached is the edge of the panel."""
    if step == NO_STEP:
        return
    # Half a step on either side, so that an interval of one step is seen too.
    end = axes.get_xlim()[1] if high == NO_STEP else high + 1.5
    axes.axvspan(low + 0.5, end, color=look.colour, alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(step + 1, color=look.colour, linestyle=look.dashes, linewidth=0.9, zorder=1, label=label)

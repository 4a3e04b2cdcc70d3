"""Scores of probes and image models over the steps, and when each has emerged.

The papers' seven-row figure: an unfinished image, and what a probe and an image model see of it at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
from diffprobe.analyses.emergence.leads import COMMON, OWN
from diffprobe.analyses.emergence.tables import PropertySummary
from diffprobe.report.choices import METRIC_NAMES, control_curve, control_name, controls, curve
from diffprobe.report.example import PredictionExample
from diffprobe.report.grid import default_steps, draw_property, grid_panels, name_right
from diffprobe.report.names import short_names
from diffprobe.report.style import (
    BEST_STYLE,
    CONTROL_STYLES,
    DOUBLE_COLUMN,
    GREY,
    HEADLINE_STYLE,
    OTHER_STYLE,
    SINGLE_COLUMN,
    CurveStyle,
    draw_curve,
    draw_level,
    shared_legend,
    spread_ticks,
    style,
)
from diffprobe.tables import NO_STEP

if TYPE_CHECKING:
    from diffprobe.probes.summaries import Summary


PROBE_STYLE, IMAGE_MODEL_STYLE = BEST_STYLE, HEADLINE_STYLE


@style()
def emergence_curves(summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary]) -> Figure:
    """One panel a property: test scores of the best layer's probe and of the image model, with 95 % intervals.

    Vertical lines are the steps by which each has reached its share of its own last score, shades behind them their
    intervals; the horizontal line is that share of the probe's last score, a level for both. Other controls that were
    run are curves too.
    """
    width = SINGLE_COLUMN if len(property_summaries) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.4 if len(property_summaries) == 1 else 2.2), layout="constrained")
    names = short_names(summaries["layer"])
    for axes, one in zip(np.ravel(figure.subplots(1, len(property_summaries))), property_summaries, strict=True):
        _draw(axes, summaries, one)
        axes.set_title(f"{one.choice.property}: {names[one.choice.best]}")
    figure.supxlabel("denoising step", fontsize=8)
    shared_legend(figure, columns=1 if len(property_summaries) == 1 else 3)
    return figure


def _draw(axes: Axes, summaries: pd.DataFrame, one: PropertySummary) -> None:
    choice, own = one.choice, one.lead(OWN)
    rows = curve(summaries, choice, choice.best)
    steps = [row.step + 1 for row in rows]
    draw_curve(axes, steps, rows, "probe, on activations", PROBE_STYLE)
    seen = control_curve(summaries, choice, IMAGE_MODEL)
    draw_curve(axes, [row.step + 1 for row in seen], seen, "image model, on the decoded image", IMAGE_MODEL_STYLE)
    for control in controls(summaries, choice):
        if control != IMAGE_MODEL:
            _draw_control(axes, control_curve(summaries, choice, control), control)
    share = f"{100 * own.fraction:g} % of the last score"
    _draw_step(axes, own.probe_step, own.probe_low, own.probe_high, f"probe at {share}", PROBE_STYLE)
    _draw_step(
        axes, own.image_model_step, own.image_model_low, own.image_model_high, f"image model at {share}",
        IMAGE_MODEL_STYLE,
    )  # fmt: skip
    common = one.lead(COMMON).probe_level
    if common is not None:
        axes.axhline(common, color=GREY, linewidth=0.7, linestyle=":", zorder=1, label=f"{share} of the probe")
    axes.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axes.set_xticks(spread_ticks(steps))
    axes.set_ylabel(METRIC_NAMES.get(choice.metric, choice.metric))
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)


def _draw_control(axes: Axes, rows: Sequence[Summary], control: str) -> None:
    look = CONTROL_STYLES.get(control, OTHER_STYLE)
    if rows and rows[0].step == NO_STEP:
        draw_level(axes, rows[0], control_name(control), look)
    else:
        draw_curve(axes, [row.step + 1 for row in rows], rows, control_name(control), look)


def _draw_step(axes: Axes, step: int, low: int, high: int, label: str, look: CurveStyle) -> None:
    """A vertical line at a step and its interval as a shade; an end that is not reached is the edge of the panel."""
    if step == NO_STEP:
        return
    # Half a step on either side, so that an interval of one step is seen too.
    end = axes.get_xlim()[1] if high == NO_STEP else high + 1.5
    axes.axvspan(low + 0.5, end, color=look.colour, alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(step + 1, color=look.colour, linestyle=look.dashes, linewidth=0.9, zorder=1, label=label)


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

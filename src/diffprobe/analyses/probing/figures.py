"""The figures of a probing study, made from its score tables alone (pictures also from its examples).

Scores over denoising steps, and over the number of training images; each beside what it has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from diffprobe.files import NO_STEP
from diffprobe.probes.score_table import select
from diffprobe.report.choices import (
    METRIC_NAMES,
    LayerChoice,
    at_step,
    control_curve,
    control_name,
    controls,
    curve,
    grouped,
)
from diffprobe.report.grid import PredictionExample, prediction_grid
from diffprobe.report.heatmap import layer_step_heatmap
from diffprobe.report.report import Plot
from diffprobe.report.style import (
    BEST_LABEL,
    BEST_STYLE,
    CONTROL_STYLES,
    DOUBLE_COLUMN,
    HEADLINE_LABEL,
    HEADLINE_STYLE,
    ORANGE,
    OTHER_STYLE,
    SINGLE_COLUMN,
    draw_curve,
    draw_level,
    shared_legend,
    spread_ticks,
    style,
)
from diffprobe.report.wording import short_names

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer


@style()
def scores_over_steps(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> Figure:
    """One panel a property: score over steps with 95 % intervals, of two layers and every control that was run.

    The vertical line is the step by which the best layer's probe has come near its final score, the shade behind it
    that step's interval.
    """
    figure, panels = _panels(len(choices))
    for axes, choice in zip(panels, choices, strict=True):
        _score_panel(axes, summaries, choice)
    figure.supxlabel("denoising step", fontsize=8)
    shared_legend(figure, columns=1 if len(choices) == 1 else 3)
    return figure


@style()
def learning_curves(
    points: pd.DataFrame, choices: Sequence[LayerChoice], summaries: pd.DataFrame | None = None
) -> Figure:
    """One panel a property: test score of the best layer over the number of training images, with 95 % intervals.

    Controls among the points are curves too; those of `summaries`, trained on all images, are horizontal lines. The
    step is the last among the points.
    """
    figure, panels = _panels(len(choices))
    for axes, choice in zip(panels, choices, strict=True):
        _learning_panel(axes, points, choice, summaries)
    figure.supxlabel("training images", fontsize=8)
    shared_legend(figure, columns=1 if len(choices) == 1 else 3)
    return figure


def _panels(count: int) -> tuple[Figure, np.ndarray]:
    width = SINGLE_COLUMN if count == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.4 if count == 1 else 2.2), layout="constrained")
    return figure, np.ravel(figure.subplots(1, count))


def _score_panel(axes: Axes, summaries: pd.DataFrame, choice: LayerChoice) -> None:
    short = short_names(summaries["layer"])
    best = curve(summaries, choice, choice.best)
    draw_curve(axes, [row.step + 1 for row in best], best, BEST_LABEL, BEST_STYLE)
    if choice.headline != choice.best:
        rows = curve(summaries, choice, choice.headline)
        label = f"{HEADLINE_LABEL}, {short.get(choice.headline)}"
        draw_curve(axes, [row.step + 1 for row in rows], rows, label, HEADLINE_STYLE)
    for control in controls(summaries, choice):
        rows = control_curve(summaries, choice, control)
        look = CONTROL_STYLES.get(control, OTHER_STYLE)
        if rows and rows[0].step == NO_STEP:
            draw_level(axes, rows[0], control_name(control), look)
        else:
            draw_curve(axes, [row.step + 1 for row in rows], rows, control_name(control), look)
    _draw_emergence(axes, choice)
    axes.set_title(f"{choice.property}: {short.get(choice.best, choice.best)}")
    if best:
        axes.set_xlim(best[0].step + 0.5, best[-1].step + 1.5)
        axes.set_xticks([step + 1 for step in spread_ticks([row.step for row in best])])
    _label_scores(axes, choice)


def _learning_panel(axes: Axes, points: pd.DataFrame, choice: LayerChoice, summaries: pd.DataFrame | None) -> None:
    last = max((row.step for row in curve(points, choice, choice.best)), default=0)
    of_size = {size: select(points, images=size) for size in sorted(points["images"].unique().tolist())}
    found = {size: at_step(curve(part, choice, choice.best), last) for size, part in of_size.items()}
    by_size = {size: row for size, row in found.items() if row is not None}
    draw_curve(axes, list(by_size), list(by_size.values()), BEST_LABEL, BEST_STYLE)
    measured = controls(points, choice)
    for control in measured:
        found = {size: at_step(control_curve(part, choice, control), last) for size, part in of_size.items()}
        rows = {size: row for size, row in found.items() if row is not None}
        draw_curve(
            axes, list(rows), list(rows.values()), control_name(control), CONTROL_STYLES.get(control, OTHER_STYLE)
        )
    layers = [*points["layer"]]
    if summaries is not None:
        layers += [*summaries["layer"]]
        for control in controls(summaries, choice):
            if control not in measured:
                row = at_step(control_curve(summaries, choice, control), last)
                draw_level(axes, row, f"{control_name(control)}, all images", CONTROL_STYLES.get(control, OTHER_STYLE))
    short = short_names(layers)
    axes.set_title(f"{choice.property}: {short.get(choice.best, choice.best)}, step {last + 1}")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    sizes = list(by_size)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    _label_scores(axes, choice)


def _draw_emergence(axes: Axes, choice: LayerChoice) -> None:
    found = choice.emergence
    if found.step is None:
        return
    if found.low is not None and found.high is not None:
        # Half a step on either side, so that an interval of one step is seen too.
        axes.axvspan(found.low + 0.5, found.high + 1.5, color=ORANGE, alpha=0.15, linewidth=0, zorder=0)
    label = f"{choice.fraction:.0%} of the last score reached".replace("%", " %")
    axes.axvline(found.step + 1, color=ORANGE, linewidth=1, zorder=1, label=label)


def _label_scores(axes: Axes, choice: LayerChoice) -> None:
    axes.set_ylabel(METRIC_NAMES.get(choice.metric, choice.metric))
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)  # the metrics' range, so that panels can be compared


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

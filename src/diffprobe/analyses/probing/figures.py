"""The figures of a probing study, made from its score tables; pictures also from its examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation

from diffprobe.analyses.probing.findings import cell_rows, controls_at, score_at
from diffprobe.backbone.layers import network_order, short_names
from diffprobe.errors import UserError
from diffprobe.probes.score_table import select
from diffprobe.report.choices import LayerChoice, control_curve, control_name, controls, curve, grouped, or_nan, sign_of
from diffprobe.report.grid import PredictionExample, prediction_grid
from diffprobe.report.report import Plot
from diffprobe.report.style import (
    BEST_LABEL,
    BEST_STYLE,
    BLUE,
    CONTROL_STYLES,
    HEADLINE_LABEL,
    HEADLINE_STYLE,
    ORANGE,
    OTHER_STYLE,
    VERMILION,
    CurveStyle,
    curve_panels,
    draw_cells,
    draw_control,
    draw_curve,
    draw_level,
    draw_over_steps,
    draw_step,
    label_scores,
    shared_legend,
    style,
)

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.summaries import Summary

EMERGENCE_STYLE = CurveStyle(ORANGE, "-", "")


@style()
def scores_over_steps(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> Figure:
    """One panel a property: score over steps with 95 % intervals, of two layers and every control that was run.

    The vertical line is the step by which the best layer's probe has come near its final score, the shade behind it
    that step's interval.
    """
    figure, panels = curve_panels(len(choices))
    short = short_names(summaries["layer"])
    for axes, choice in zip(panels, choices, strict=True):
        best = curve(summaries, choice, choice.best)
        draw_over_steps(axes, best, BEST_LABEL, BEST_STYLE)
        if choice.headline != choice.best:
            label = f"{HEADLINE_LABEL}, {short.get(choice.headline)}"
            draw_over_steps(axes, curve(summaries, choice, choice.headline), label, HEADLINE_STYLE)
        for control in controls(summaries, choice):
            draw_control(axes, control_curve(summaries, choice, control), control)
        emergence = choice.emergence
        if emergence is not None and emergence.step is not None:
            share = choice.fraction if sign_of(choice.metric) > 0 else 1 / choice.fraction
            label = f"{100 * share:.0f} % of the last {'score' if sign_of(choice.metric) > 0 else 'error'} reached"
            draw_step(axes, emergence.step, emergence.low, emergence.high, label, EMERGENCE_STYLE)
        axes.set_title(f"{choice.property}: {short.get(choice.best, choice.best)}")
        label_scores(axes, choice.metric, [row.step for row in best])
    shared_legend(figure)
    return figure


@style()
def learning_curves(
    points: pd.DataFrame, choices: Sequence[LayerChoice], summaries: pd.DataFrame | None = None
) -> Figure:
    """One panel a property: test score of the best layer over the number of training images, with 95 % intervals.

    Controls among the points are curves too; those of `summaries`, trained on all images, are horizontal lines. The
    step is the last among the points.
    """
    figure, panels = curve_panels(len(choices), "training images")
    for axes, choice in zip(panels, choices, strict=True):
        _learning_panel(axes, points, choice, summaries)
    shared_legend(figure)
    return figure


def _learning_panel(axes: Axes, points: pd.DataFrame, choice: LayerChoice, summaries: pd.DataFrame | None) -> None:
    last = max((row.step for row in curve(points, choice, choice.best)), default=0)
    sizes = sorted(points["images"].unique().tolist())
    curves: dict[str, dict[int, Summary]] = {}
    for size in sizes:
        part = select(points, images=size)
        rows = {BEST_LABEL: score_at(part, choice, choice.best, last), **controls_at(part, choice, last)}
        for name, row in rows.items():
            if row is not None:
                curves.setdefault(name, {})[size] = row
    for name, rows in curves.items():
        look = BEST_STYLE if name == BEST_LABEL else CONTROL_STYLES.get(name, OTHER_STYLE)
        draw_curve(axes, list(rows), list(rows.values()), control_name(name), look)
    layers = [*points["layer"]]
    if summaries is not None:
        layers += [*summaries["layer"]]
        for control, row in controls_at(summaries, choice, last).items():
            if control not in curves:
                draw_level(axes, row, f"{control_name(control)}, all images", CONTROL_STYLES.get(control, OTHER_STYLE))
    axes.set_title(f"{choice.property}: {short_names(layers).get(choice.best, choice.best)}, step {last + 1}")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, [str(size) for size in sizes])
    label_scores(axes, choice.metric)


@style()
def layer_step_heatmap(summaries: pd.DataFrame, choice: LayerChoice, layers: Sequence[Layer] = ()) -> Figure:
    """The metric on test images of every layer (row, in network order) at every step (column), without controls.

    Args:
        layers: gives the order and the resolutions; without it the order is read off the names of a U-Net.

    Raises:
        UserError: no row of test images has the choice's property and metric.
    """
    scores = {(row.layer, row.step): or_nan(row.mean) for row in cell_rows(summaries, choice)}
    if not scores:
        raise UserError(f"no test score '{choice.metric}' of property '{choice.property}' to draw")
    present = {layer for layer, _ in scores}
    names = [layer.name for layer in layers if layer.name in present] or network_order(layer for layer, _ in scores)
    steps = sorted({step for _, step in scores})
    values = np.array([[scores.get((name, step), math.nan) for step in steps] for name in names])
    figure, axes = draw_cells(values, names, steps, choice.metric, layers)
    axes.set_title(f"{choice.property} (test)")
    # Marks right of the rows of two layers; x: a little right of the axes, y: the row, in data coordinates
    beside = axes.get_yaxis_transform() + ScaledTranslation(8 / 72, 0, figure.dpi_scale_trans)
    star = {"marker": "*", "s": 22, "facecolor": VERMILION, "linewidths": 0, "label": BEST_LABEL}
    diamond = {"marker": "D", "s": 24, "facecolor": "none", "edgecolor": BLUE, "linewidths": 0.9}
    handles: list = [
        axes.scatter(1, names.index(layer) + 0.5, transform=beside, clip_on=False, **look)  # type: ignore[arg-type]
        for layer, look in ((choice.best, star), (choice.headline, {**diamond, "label": HEADLINE_LABEL}))
        if layer in names
    ]
    if np.isnan(values).any():
        handles.append(axes.patch)
        axes.patch.set_label("no score")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.3, columnspacing=1)
    return figure


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

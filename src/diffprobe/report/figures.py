"""The figures of the main job. Steps count from 0 in the rows and from 1 in every picture, as the papers count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from diffprobe.errors import UserError
from diffprobe.probes.summaries import best_layer
from diffprobe.report.choices import (
    HEADLINE_LAYER,
    METRIC_NAMES,
    Choice,
    curve,
    number,
    position_row,
)
from diffprobe.report.names import network_order, resolutions, short_names
from diffprobe.report.style import (
    BLUE,
    DOUBLE_COLUMN,
    GREEN,
    GREY,
    ORANGE,
    SEQUENTIAL,
    SINGLE_COLUMN,
    VERMILION,
    style,
)

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.tables import Summary

BEST_LABEL = "best layer on validation"
HEADLINE_LABEL = "the papers' layer"


@style()
def layer_step_heatmap(
    summaries: Sequence[Summary],
    property: str,
    metric: str,
    split: str = "test",
    layers: Sequence[Layer] = (),
) -> Figure:
    """Score of every layer (row, in network order) at every step (column).

    Args:
        summaries: rows of one model; those of controls are left out.
        layers: gives the order and the resolutions; without it the order is read off the names of a U-Net.

    Raises:
        UserError: no row has this property, metric and split.
    """
    scores = {
        (row.layer, row.step): number(row.mean)
        for row in summaries
        if (row.property, row.metric, row.split, row.control) == (property, metric, split, "none")
    }
    if not scores:
        raise UserError(f"no {split} score '{metric}' of property '{property}' to draw")
    present = {layer for layer, _ in scores}
    names = [layer.name for layer in layers if layer.name in present] or network_order(layer for layer, _ in scores)
    steps = sorted({step for _, step in scores})
    values = np.array([[scores.get((name, step), math.nan) for step in steps] for name in names])

    width, height = SINGLE_COLUMN if len(steps) <= 20 else DOUBLE_COLUMN, 0.145 * max(8, len(names))
    figure = Figure(figsize=(width, height + 1.1), layout="constrained")
    axes = figure.add_subplot()
    # Cells without a score let this hatching show through.
    axes.patch.set(facecolor="0.92", hatch="/////", edgecolor="0.65")
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=SEQUENTIAL, edgecolors="white", linewidth=0.3)
    bar = figure.colorbar(mesh, ax=axes, pad=0.4 / width, fraction=0.06, aspect=height / 0.09)
    bar.set_label(METRIC_NAMES.get(metric, metric))
    bar.outline.set_visible(False)
    _label_cells(axes, names, steps, resolutions(layers))
    axes.set_title(f"{property} ({split})")
    _mark_rows(figure, axes, names, best_layer(summaries, property), bool(np.isnan(values).any()))
    return figure


def _label_cells(axes: Axes, names: list[str], steps: list[int], sizes: dict[str, str]) -> None:
    short = short_names(names)
    labels = [f"{short[name]}  {sizes[name]}" if name in sizes else short[name] for name in names]
    axes.set_yticks(np.arange(len(names)) + 0.5, labels)
    axes.set_xticks([steps.index(step) + 0.5 for step in _ticks(steps)], [str(step + 1) for step in _ticks(steps)])
    axes.tick_params(length=0)
    axes.invert_yaxis()  # the network's input on top
    axes.spines[:].set_visible(False)
    axes.set_xlabel("denoising step")


def _mark_rows(figure: Figure, axes: Axes, names: list[str], best: str, missing: bool) -> None:
    """Marks the two layers that are talked about, right of their rows, and explains the marks below."""
    # x: a little right of the axes; y: the row, in data coordinates. One layer may carry both marks.
    beside = axes.get_yaxis_transform() + ScaledTranslation(8 / 72, 0, figure.dpi_scale_trans)
    star: dict[str, Any] = {"marker": "*", "s": 22, "facecolor": VERMILION, "linewidths": 0, "label": BEST_LABEL}
    diamond: dict[str, Any] = {
        "marker": "D",
        "s": 24,
        "facecolor": "none",
        "edgecolor": BLUE,
        "linewidths": 0.9,
        "label": HEADLINE_LABEL,
    }
    handles = []
    for layer, look in ((best, star), (HEADLINE_LAYER, diamond)):
        if layer in names:
            row = names.index(layer) + 0.5
            handles.append(axes.scatter(1, row, transform=beside, clip_on=False, **look))
    if missing:
        handles.append(axes.patch)
        axes.patch.set_label("no score")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.3, columnspacing=1)


@style()
def scores_over_steps(summaries: Sequence[Summary], choices: Sequence[Choice], split: str = "test") -> Figure:
    """One panel a property: score over steps with 95 % intervals, of two layers and both controls.

    The vertical line is the step by which the best layer's probe has come near its final score, the shade behind it
    that step's interval.
    """
    width = SINGLE_COLUMN if len(choices) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 3.2 if len(choices) == 1 else 2.6), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(choices), sharex=True))
    handles = {}
    for axes, choice in zip(panels, choices, strict=True):
        _score_panel(axes, summaries, choice, split)
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.supxlabel("denoising step", fontsize=8)
    figure.legend(
        handles=list(handles.values()),
        labels=list(handles),
        loc="outside upper center",
        ncols=1 if len(choices) == 1 else 3,
    )
    return figure


def _score_panel(axes: Axes, summaries: Sequence[Summary], choice: Choice, split: str) -> None:
    short = short_names(row.layer for row in summaries)
    best = curve(summaries, choice, choice.best, split=split)
    _draw_curve(axes, best, BEST_LABEL, VERMILION, "-", "o")
    if choice.headline != choice.best:
        headline = curve(summaries, choice, choice.headline, split=split)
        label = f"{HEADLINE_LABEL}, {short.get(choice.headline)}"
        _draw_curve(axes, headline, label, BLUE, "--", "D")
    permuted = curve(summaries, choice, choice.best, control="permuted", split=split)
    _draw_curve(axes, permuted, "permuted network, best layer", GREEN, "-.", "s")
    _draw_position(axes, position_row(summaries, choice, split))
    _draw_emergence(axes, choice)
    axes.set_title(f"{choice.property}: {short.get(choice.best, choice.best)}")
    axes.set_ylabel(METRIC_NAMES.get(choice.metric, choice.metric))
    _limit(axes, choice, best)


def _draw_curve(axes: Axes, rows: Sequence[Summary], label: str, colour: str, dashes: str, marker: str) -> None:
    if not rows:
        return
    steps = [row.step + 1 for row in rows]
    low, mean, high = ([number(getattr(row, field)) for row in rows] for field in ("low", "mean", "high"))
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(steps, mean, color=colour, linestyle=dashes, marker=marker, markersize=2.5, label=label)


def _draw_position(axes: Axes, row: Summary | None) -> None:
    if row is None or math.isnan(number(row.mean)):
        return
    axes.axhspan(number(row.low), number(row.high), color=GREY, alpha=0.25, linewidth=0)
    axes.axhline(number(row.mean), color=GREY, linestyle=":", label="pixel position only")


def _draw_emergence(axes: Axes, choice: Choice) -> None:
    found = choice.emergence
    if found.step is None:
        return
    if found.low is not None and found.high is not None:
        # Half a step on either side, so that an interval of one step is seen too.
        axes.axvspan(found.low + 0.5, found.high + 1.5, color=ORANGE, alpha=0.15, linewidth=0, zorder=0)
    label = f"{choice.fraction:.0%} of the last score reached".replace("%", " %")
    axes.axvline(found.step + 1, color=ORANGE, linewidth=1, zorder=1, label=label)


def _limit(axes: Axes, choice: Choice, rows: Sequence[Summary]) -> None:
    if rows:
        steps = [row.step for row in rows]
        axes.set_xlim(steps[0] + 0.5, steps[-1] + 1.5)
        axes.set_xticks([step + 1 for step in _ticks(steps)])
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)  # the metrics' range, so that panels can be compared


def _ticks(steps: list[int]) -> list[int]:
    """At most eight of the steps, evenly, the first always among them."""
    return steps[:: math.ceil(len(steps) / 8)]

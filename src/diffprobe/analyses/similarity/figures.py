"""The two matrices: CKA of all layers and steps, and of each property the probes at the other steps of their layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from diffprobe.backbone.layers import short_names
from diffprobe.properties.metrics import metric_named
from diffprobe.report.choices import control_name, or_nan
from diffprobe.report.report import Plot
from diffprobe.report.style import DOUBLE_COLUMN, SEQUENTIAL, SINGLE_COLUMN, colours_of, spread_ticks, style
from diffprobe.report.wording import direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffprobe.analyses.similarity.cka import Similarities
    from diffprobe.analyses.similarity.transfer import Transfer
    from diffprobe.backbone.layers import Layer

ABREAST = 4  # panels of layers
PALE = 0.6  # how white cells are that are not shown to be better than pixel position


@style()
def cka_matrix(layers: Sequence[Layer], steps: Sequence[int], found: Similarities) -> Figure:
    """Rows and columns are layers from input to output, and within each its steps; lines part the layers."""
    count, length = len(layers), len(steps)
    side = DOUBLE_COLUMN if count > 1 else SINGLE_COLUMN
    figure = Figure(figsize=(side, 0.86 * side), layout="compressed")
    axes = figure.add_subplot()
    mesh = _draw(axes, found.value)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.05, aspect=35)
    bar.set_label("debiased CKA")
    bar.outline.set_visible(False)
    if count == 1:
        _step_ticks(axes, steps)
        axes.set(xlabel="denoising step", ylabel="denoising step", title=next(iter(_names(layers).values())))
        return figure
    for edge in range(length, count * length, length):
        axes.axhline(edge, color="white", linewidth=1)
        axes.axvline(edge, color="white", linewidth=1)
    middles = (np.arange(count) + 0.5) * length
    labels = list(_names(layers).values())
    sizes = [f"{layer.height}\N{MULTIPLICATION SIGN}{layer.width}" for layer in layers]
    axes.set_yticks(middles, [f"{label}  {size}" for label, size in zip(labels, sizes, strict=True)])
    axes.set_xticks(middles, labels, rotation=0 if count <= ABREAST * 2 else 90)
    if length > 1:
        axes.set_xlabel(
            f"within each layer: steps {steps[0] + 1} to {steps[-1] + 1}, from left to right, top to bottom"
        )
    return figure


@style()
def transfer_matrices(
    layers: Sequence[Layer], steps: Sequence[int], rows: Sequence[Transfer], *, shares: bool
) -> Figure:
    """One panel a layer, of one property: what the probe of each step (rows) has at each step (columns).

    Pale: not shown to be better than pixel position.

    Args:
        shares: draws shares of the native score, else the scores themselves.
    """
    columns = min(len(layers), ABREAST)
    lines = math.ceil(len(layers) / columns)
    width = DOUBLE_COLUMN if columns > 1 else SINGLE_COLUMN
    each = (width - 1.2) / columns
    figure = Figure(figsize=(width, lines * (each + 0.25) + 0.5), layout="compressed")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    metric, names = metric_named(rows[0].metric), _names(layers)
    values = np.array([or_nan(row.share if shares else row.mean) for row in rows])
    at_most = 1.0 if shares or math.isfinite(metric.high) else float(np.nanmax(values, initial=0.0))
    colours = SEQUENTIAL if shares else colours_of(metric.name)
    for axes, layer in zip(panels, layers, strict=False):
        own = np.array([row.layer == layer.name for row in rows])
        pale = [not shown_better(row) for row in rows if row.layer == layer.name]
        shape = (len(steps), len(steps))
        mesh = _draw(axes, values[own].reshape(shape), colours, at_most)
        veil = np.where(np.reshape(pale, shape), PALE, 0.0)
        axes.pcolormesh(np.zeros(shape), cmap="Greys", vmin=0, vmax=1, alpha=veil, rasterized=True)
        axes.set_title(names[layer.name])
        _step_ticks(axes, steps)
    for axes in panels[len(layers) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(layers) - columns) : len(layers)]:
        axes.tick_params(labelbottom=True)
    bar = figure.colorbar(mesh, ax=panels.tolist(), pad=0.02, fraction=0.03, aspect=25)
    share = "share of the step's own probe" if metric.higher_is_better else "own probe's error / error"
    bar.set_label(share if shares else metric.label + direction(metric.name))
    bar.outline.set_visible(False)
    figure.supxlabel("tested at step", fontsize=8)
    figure.supylabel("probe of step", fontsize=8)
    return figure


def shown_better(row: Transfer) -> bool:
    """Whether the interval of its difference to pixel position leaves out 0, on the better side."""
    low, high = or_nan(row.above_floor_low), or_nan(row.above_floor_high)
    return low > 0 if metric_named(row.metric).higher_is_better else high < 0


def _draw(axes: Axes, values: np.ndarray, colours: str = SEQUENTIAL, at_most: float = 1.0) -> Any:
    """Values [rows, columns] from 0 on, which may be a little beyond; the first row on top, NaN hatched."""
    axes.patch.set(facecolor="0.92", hatch="/////", edgecolor="0.65")
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, vmin=0, vmax=at_most, rasterized=True)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0, values.shape[1]), ylim=(values.shape[0], 0))
    return mesh


def _step_ticks(axes: Axes, steps: Sequence[int]) -> None:
    shown = spread_ticks(steps)
    places = [steps.index(step) + 0.5 for step in shown]
    axes.set_xticks(places, [str(step + 1) for step in shown])
    axes.set_yticks(places, [str(step + 1) for step in shown])


def _names(layers: Sequence[Layer]) -> dict[str, str]:
    return short_names(layer.name for layer in layers)


def similarity_figures(
    layers: Sequence[Layer], steps: Sequence[int], found: Similarities, rows: Sequence[Transfer]
) -> dict[str, Plot]:
    """The CKA matrix, and of every property the transfer matrices of all layers."""
    figures = {
        "cka": Plot(
            partial(cka_matrix, layers, steps, found),
            "Debiased linear CKA of every two layers and steps over test images, layers from input to output and steps "
            "within each. Layers of different resolution are compared on the coarser grid.",
        )
    }
    for name in dict.fromkeys(row.property for row in rows):
        own = [row for row in rows if row.property == name]
        pale = f"pale: not shown to be better than {control_name('position')}"
        figures[f"transfer_{name}"] = Plot(
            partial(transfer_matrices, layers, steps, own, shares=True),
            f"{name}: each step's probe at every step of its layer, its score in shares of that of the probe which was "
            f"trained there; {pale}.",
        )
        figures[f"transfer_{name}_scores"] = Plot(
            partial(transfer_matrices, layers, steps, own, shares=False),
            f"{name}: the score of each step's probe at every step of its layer; {pale}.",
        )
    return figures

"""The map of layers and steps: where and when a property can be read off.

Coloured cells of layers (rows) and steps (columns), as heat maps of any score are made of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.report.choices import METRIC_NAMES, LayerChoice, cell_rows, or_nan
from diffprobe.report.style import (
    BEST_LABEL,
    BLUE,
    DOUBLE_COLUMN,
    HEADLINE_LABEL,
    SEQUENTIAL,
    SINGLE_COLUMN,
    VERMILION,
    spread_ticks,
    style,
)
from diffprobe.report.wording import network_order, resolutions, short_names

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer


def draw_cells(
    values: np.ndarray, names: Sequence[str], steps: Sequence[int], label: str, sizes: Mapping[str, str] | None = None
) -> tuple[Figure, Axes]:
    """A figure of values [layers, steps] with a colour bar; cells without a value (NaN) are hatched.

    Args:
        label: what the colours are.
        sizes: layer -> resolution, for those where it is known.
    """
    width, height = SINGLE_COLUMN if len(steps) <= 20 else DOUBLE_COLUMN, 0.145 * max(8, len(names))
    figure = Figure(figsize=(width, height + 1.1), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set(facecolor="0.92", hatch="/////", edgecolor="0.65")  # shows through where there is no value
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=SEQUENTIAL, edgecolors="white", linewidth=0.3)
    bar = figure.colorbar(mesh, ax=axes, pad=0.4 / width, fraction=0.06, aspect=height / 0.09)
    bar.set_label(label)
    bar.outline.set_visible(False)
    short = short_names(names)
    axes.set_yticks(
        np.arange(len(names)) + 0.5, [f"{short[name]}  {(sizes or {}).get(name, '')}".strip() for name in names]
    )
    shown = [step for step in spread_ticks(steps) if step != NO_STEP]
    axes.set_xticks([steps.index(step) + 0.5 for step in shown], [str(step + 1) for step in shown])
    axes.tick_params(length=0)
    axes.invert_yaxis()  # the network's input on top
    axes.spines[:].set_visible(False)
    axes.set_xlabel("denoising step")
    return figure, axes


@style()
def layer_step_heatmap(
    summaries: pd.DataFrame,
    choice: LayerChoice,
    layers: Sequence[Layer] = (),
) -> Figure:
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

    label = METRIC_NAMES.get(choice.metric, choice.metric)
    figure, axes = draw_cells(values, names, steps, label, resolutions(layers))
    axes.set_title(f"{choice.property} (test)")
    _mark_rows(figure, axes, names, choice, bool(np.isnan(values).any()))
    return figure


def _mark_rows(figure: Figure, axes: Axes, names: list[str], choice: LayerChoice, missing: bool) -> None:
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
    for layer, look in ((choice.best, star), (choice.headline, diamond)):
        if layer in names:
            row = names.index(layer) + 0.5
            handles.append(axes.scatter(1, row, transform=beside, clip_on=False, **look))
    if missing:
        handles.append(axes.patch)
        axes.patch.set_label("no score")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.3, columnspacing=1)

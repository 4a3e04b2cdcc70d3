"""The map of layers and steps: where and when a property can be read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from diffprobe.errors import UserError
from diffprobe.report.cells import draw_cells
from diffprobe.report.choices import METRIC_NAMES, Choice, number
from diffprobe.report.looks import BEST_LABEL, HEADLINE_LABEL
from diffprobe.report.names import network_order, resolutions
from diffprobe.report.style import BLUE, VERMILION, style

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.tables import Summary


@style()
def layer_step_heatmap(
    summaries: Sequence[Summary],
    choice: Choice,
    split: str = "test",
    layers: Sequence[Layer] = (),
) -> Figure:
    """The choice's metric of every layer (row, in network order) at every step (column), without controls.

    Args:
        layers: gives the order and the resolutions; without it the order is read off the names of a U-Net.

    Raises:
        UserError: no row has the choice's property, metric and split.
    """
    wanted = (choice.model, choice.probe, choice.property, choice.metric, split, "none")
    scores = {
        (row.layer, row.step): number(row.mean)
        for row in summaries
        if (row.model, row.probe, row.property, row.metric, row.split, row.control) == wanted
    }
    if not scores:
        raise UserError(f"no {split} score '{choice.metric}' of property '{choice.property}' to draw")
    present = {layer for layer, _ in scores}
    names = [layer.name for layer in layers if layer.name in present] or network_order(layer for layer, _ in scores)
    steps = sorted({step for _, step in scores})
    values = np.array([[scores.get((name, step), math.nan) for step in steps] for name in names])

    label = METRIC_NAMES.get(choice.metric, choice.metric)
    figure, axes = draw_cells(values, names, steps, label, resolutions(layers))
    axes.set_title(f"{choice.property} ({split})")
    _mark_rows(figure, axes, names, choice, bool(np.isnan(values).any()))
    return figure


def _mark_rows(figure: Figure, axes: Axes, names: list[str], choice: Choice, missing: bool) -> None:
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

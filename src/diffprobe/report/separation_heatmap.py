"""The map of layers and steps for objects: where and when classes are apart, and the four sets in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.report.cells import draw_cells
from diffprobe.report.findings import Finding
from diffprobe.report.names import network_order, resolutions
from diffprobe.report.numbers import there
from diffprobe.report.style import style

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer

SURELY = "in order, p at most 0.05 after Holm"
BY_MEANS = "in order by means"


@style()
def separation_heatmap(found: Sequence[Finding], layers: Sequence[Layer] = ()) -> Figure:
    """AUC of scdi < dcdi of every layer (row) at every timestep (column), with a dot where the four sets are in order.

    A large dot: by the test of the order; a small one: by means alone. The findings are of one model
    and measure. `layers` gives the order and the resolutions; without it the order is read off the names of a U-Net.

    Raises:
        UserError: no finding has an AUC.
    """
    values = {(item.layer, item.step): row.value for item in found if (row := item.test("auc", "scdi", "dcdi"))}
    if not values:
        raise UserError("no AUC of scdi and dcdi to draw: one of these sets is empty at every layer and step")
    present = {item.layer for item in found}
    names = [layer.name for layer in layers if layer.name in present]
    names += [name for name in network_order(item.layer for item in found) if name not in names]
    steps = sorted({item.step for item in found})
    grid = np.array([[values.get((name, step), math.nan) for step in steps] for name in names], dtype=float)
    figure, axes = draw_cells(grid, names, steps, "AUC of scdi < dcdi (0.5: chance)", resolutions(layers))
    timesteps = {item.step: item.timestep for item in found}
    if all(there(timestep) for timestep in timesteps.values()):  # images are noised, so it says more than a step
        ticks = axes.get_xticks()
        axes.set_xticks(ticks, [f"{timesteps[steps[int(tick)]]:g}" for tick in ticks])
        axes.set_xlabel("timestep")
    ordered = [item for item in found if item.in_order]
    sure = [item for item in ordered if item.order_shown]
    unsure = [item for item in ordered if item not in sure]
    handles = []
    for label, items, size in ((SURELY, sure, 22), (BY_MEANS, unsure, 4)):
        if items:
            x, y = [steps.index(item.step) + 0.5 for item in items], [names.index(item.layer) + 0.5 for item in items]
            # a white dot with a black rim is seen on every colour
            dots = axes.scatter(x, y, s=size, facecolor="white", edgecolor="black", linewidths=0.6, label=label)
            handles.append(dots)
    if np.isnan(grid).any():
        axes.patch.set_label("an empty set")
        handles.append(axes.patch)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=1, handletextpad=0.3)
    return figure

"""Coloured cells of layers (rows) and steps (columns), as heat maps of any score are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP
from diffprobe.report.style import DOUBLE_COLUMN, SEQUENTIAL, SINGLE_COLUMN, spread_ticks


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

"""How the distances of the four sets are distributed: drawn from counts, so that any number of pairs will do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.prototypes.histograms import SetHistogram
from diffprobe.prototypes.sets import SETS
from diffprobe.report.names import short_names
from diffprobe.report.set_looks import SET_LOOKS
from diffprobe.report.style import BLACK, DOUBLE_COLUMN, SINGLE_COLUMN, style
from diffprobe.tables import NO_STEP

ABREAST = 4  # panels in a row
WIDTH = 0.42  # of half a violin, where sets are 1 apart


@style()
def set_distributions(histograms: Sequence[SetHistogram]) -> Figure:
    """One panel a layer, step and measure: the shape of every set, its median (line) and middle half (bar).

    Shapes have the same width, whatever the number of pairs, which stands below. Filled: pairs of different images;
    hollow: pairs of one image.

    Raises:
        UserError: there is nothing to draw.
    """
    panels: dict[tuple, dict[str, SetHistogram]] = {}
    for item in histograms:
        panels.setdefault((item.layer, item.step, item.measure), {})[item.set] = item
    if not panels:
        raise UserError("no distances to draw: there are no pairs of objects")
    rows, columns = -(-len(panels) // ABREAST), min(ABREAST, len(panels))
    width = SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN * columns / ABREAST + (columns < ABREAST) * 0.6
    figure = Figure(figsize=(width, 2.1 * rows + 0.2), layout="constrained")
    places = np.ravel(figure.subplots(rows, columns, squeeze=False))
    short = short_names(layer for layer, _, _ in panels)
    several_steps = len({step for _, step, _ in panels}) > 1
    for axes, ((layer, step, measure), sets) in zip(places, panels.items(), strict=False):
        _panel(axes, sets)
        axes.set_title(f"{short[layer]}, step {step + 1}" if several_steps and step != NO_STEP else short[layer])
        axes.set_ylabel(f"{measure.replace('_', ' ')} distance")
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _panel(axes: Axes, sets: Mapping[str, SetHistogram]) -> None:
    for at, name in enumerate(SETS):
        item = sets.get(name)
        if item is not None and item.pairs:
            _violin(axes, at, item)
    labels = [f"{name}\n{_count(sets[name].pairs if name in sets else 0)}" for name in SETS]
    axes.set_xticks(range(len(SETS)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(SETS) - 0.5)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _violin(axes: Axes, at: int, item: SetHistogram) -> None:
    colour, filled = SET_LOOKS[item.set].colour, item.set in ("scdi", "dcdi")
    edges, counts = _merged(item)
    density = counts / np.diff(edges)
    half = WIDTH * density / density.max()
    axes.stairs(
        at + half, edges, baseline=at - half, orientation="horizontal", fill=filled,
        facecolor=colour if filled else "none", edgecolor=colour, linewidth=0.8, alpha=0.85 if filled else 1,
    )  # fmt: skip
    low, middle, high = (item.quantile(share) for share in (0.25, 0.5, 0.75))
    axes.plot([at, at], [low, high], color=BLACK, linewidth=2, solid_capstyle="butt")
    axes.plot([at - 0.16, at + 0.16], [middle, middle], color=BLACK, linewidth=1)


def _merged(item: SetHistogram) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts between the first and the last pair, with so many bins as its pairs can fill (Rice's rule)."""
    inside = np.flatnonzero(item.counts)
    edges, counts = item.edges[inside[0] : inside[-1] + 2], item.counts[inside[0] : inside[-1] + 1]
    merged = -(-len(counts) // max(1, round(2 * item.pairs ** (1 / 3))))
    starts = np.arange(0, len(counts), merged)
    return np.append(edges[starts], edges[-1]), np.add.reduceat(counts, starts)


def _count(pairs: int) -> str:
    """'empty', '812', '12k', '3.1M'."""
    if pairs < 1e4:
        return str(pairs) if pairs else "empty"
    return f"{pairs / 1e3:.0f}k" if pairs < 1e6 else f"{pairs / 1e6:.1f}M"

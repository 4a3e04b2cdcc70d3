"""The figures of separation: distributions of the four sets, the map of layers and steps, and nearest objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.separation.findings import SeparationCell, grouped_cells
from diffprobe.backbone.layers import network_order, short_names
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.prototypes.sets import SETS, SetHistogram
from diffprobe.report.report import Plot
from diffprobe.report.style import BLACK, BLUE, DOUBLE_COLUMN, SET_STYLES, SINGLE_COLUMN, VERMILION, draw_cells, style
from diffprobe.report.wording import is_number

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer

PER_ROW = 4  # panels
WIDTH = 0.42  # of half a violin, where sets are 1 apart
RIGHT, WRONG = "\N{CHECK MARK}", "\N{BALLOT X}"


def separation_figures(
    cells: Sequence[SeparationCell],
    histograms: Sequence[SetHistogram] = (),
    examples: Sequence[RetrievalExample] = (),
    layers: Sequence[Layer] = (),
) -> dict[str, Plot]:
    """What there is to draw: distributions.., separation.. (of several layers or steps), retrieval.

    Names carry model, measure or step where there are several.
    """
    figures: dict[str, Plot] = {}
    several_steps = len({item.step for item in histograms}) > 1
    for measure, step in dict.fromkeys((item.measure, item.step) for item in histograms):
        own = [item for item in histograms if (item.measure, item.step) == (measure, step)]
        caption = "The distances of the four sets of pairs of objects."
        name = f"distributions_{measure}{f'_step{step + 1}' * several_steps}"
        figures[name] = Plot(partial(set_distributions, own), caption)
    for group, own in grouped_cells(cells).items():
        if len(own) > 1 and any(cell.auc for cell in own):
            name = "_".join(["separation", *group.split(", ")]).rstrip("_").replace("/", "-")
            caption = "How far apart the classes are at every layer and step."
            figures[name] = Plot(partial(separation_heatmap, own, layers), caption)
    if examples:
        figures["retrieval"] = Plot(partial(retrieval_grid, examples), "Objects and those that are nearest to them.")
    return figures


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
    rows, columns = -(-len(panels) // PER_ROW), min(PER_ROW, len(panels))
    width = SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN * columns / PER_ROW + (columns < PER_ROW) * 0.6
    figure = Figure(figsize=(width, 2.1 * rows + 0.2), layout="constrained")
    places = np.ravel(figure.subplots(rows, columns, squeeze=False))
    short = short_names(layer for layer, _, _ in panels)
    several_steps = len({step for _, step, _ in panels}) > 1
    for axes, ((layer, step, measure), sets) in zip(places, panels.items(), strict=False):
        _draw_sets(axes, sets)
        axes.set_title(f"{short[layer]}, step {step + 1}" if several_steps and step != NO_STEP else short[layer])
        axes.set_ylabel(f"{measure.replace('_', ' ')} distance")
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    return figure


def _draw_sets(axes: Axes, sets: Mapping[str, SetHistogram]) -> None:
    labels = []
    for at, name in enumerate(SETS):
        pairs = sets[name].pairs if name in sets else 0
        if pairs:
            _draw_violin(axes, at, sets[name])
        short = str(pairs) if pairs < 1e4 else f"{pairs / 1e3:.0f}k" if pairs < 1e6 else f"{pairs / 1e6:.1f}M"
        labels.append(f"{name}\n{short if pairs else 'empty'}")
    axes.set_xticks(range(len(SETS)), labels)
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-0.5, len(SETS) - 0.5), ylim=(min(0.0, axes.get_ylim()[0]), None))


def _draw_violin(axes: Axes, at: int, item: SetHistogram) -> None:
    colour, filled = SET_STYLES[item.set].colour, item.set in ("scdi", "dcdi")
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
    """Edges and counts between the first and the last pair, with as many bins as Rice's rule gives for its pairs."""
    inside = np.flatnonzero(item.counts)
    edges, counts = item.edges[inside[0] : inside[-1] + 2], item.counts[inside[0] : inside[-1] + 1]
    merged = -(-len(counts) // max(1, round(2 * item.pairs ** (1 / 3))))
    starts = np.arange(0, len(counts), merged)
    return np.append(edges[starts], edges[-1]), np.add.reduceat(counts, starts)


@style()
def separation_heatmap(cells: Sequence[SeparationCell], layers: Sequence[Layer] = ()) -> Figure:
    """AUC of scdi < dcdi of every layer (row) at every timestep (column), with a dot where the four sets are in order.

    A large dot: by the test of the order; a small one: by means alone. The cells are of one model and measure.
    `layers` gives the order and the resolutions; without it the order is read off the names of a U-Net.

    Raises:
        UserError: no cell has an AUC.
    """
    values = {(cell.layer, cell.step): row.value for cell in cells if (row := cell.auc)}
    if not values:
        raise UserError("no AUC of scdi and dcdi to draw: one of these sets is empty at every layer and step")
    names = list(dict.fromkeys([layer.name for layer in layers] + network_order(cell.layer for cell in cells)))
    names = [name for name in names if any(cell.layer == name for cell in cells)]
    steps = sorted({cell.step for cell in cells})
    grid = np.array([[values.get((name, step), math.nan) for step in steps] for name in names], dtype=float)
    figure, axes = draw_cells(grid, names, steps, "AUC of scdi < dcdi (0.5: chance)", layers)
    timesteps = {cell.step: cell.timestep for cell in cells}
    if all(is_number(timestep) for timestep in timesteps.values()):  # images are noised, so it says more than a step
        ticks = axes.get_xticks()
        axes.set_xticks(ticks, [f"{timesteps[steps[int(tick)]]:g}" for tick in ticks])
        axes.set_xlabel("timestep")
    handles = []
    for label, shown, size in (
        ("in order, p at most 0.05 after Holm", True, 22),
        ("in order by means", False, 4),
    ):
        ordered = [cell for cell in cells if cell.in_order and cell.order_shown == shown]
        if ordered:
            x = [steps.index(cell.step) + 0.5 for cell in ordered]
            y = [names.index(cell.layer) + 0.5 for cell in ordered]
            # a white dot with a black rim is seen on every colour
            dots = axes.scatter(x, y, s=size, facecolor="white", edgecolor="black", linewidths=0.6, label=label)
            handles.append(dots)
    if np.isnan(grid).any():
        axes.patch.set_label("an empty set")
        handles.append(axes.patch)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=1, handletextpad=0.3)
    return figure


@dataclass(frozen=True)
class ShownObject:
    """An object in its picture.

    Attributes:
        picture: [H, W, 3] in [0, 1].
        mask: [h, w] bool, at any resolution of the same picture.
        label: its class.
    """

    picture: np.ndarray
    mask: np.ndarray
    label: str


@dataclass(frozen=True)
class RetrievalExample:
    """An object and the nearest objects of other images, nearest first, with their distances."""

    query: ShownObject
    neighbours: tuple[ShownObject, ...]
    distances: tuple[float, ...]


@style()
def retrieval_grid(examples: Sequence[RetrievalExample]) -> Figure:
    """One row an example: the query, then its neighbours, objects outlined. A tick and a solid frame mark the query's
    class, a cross and a dashed frame another.

    Raises:
        UserError: there is no example.
    """
    if not examples:
        raise UserError("no retrieval example to draw")
    columns = max(len(example.neighbours) for example in examples)
    side = DOUBLE_COLUMN / (columns + 1.15)
    figure = Figure(figsize=(DOUBLE_COLUMN, len(examples) * (side + 0.2)), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)  # type: ignore[union-attr]
    places = figure.add_gridspec(len(examples), columns + 2, width_ratios=[1, 0.15] + [1] * columns)
    for row, example in enumerate(examples):
        axes = figure.add_subplot(places[row, 0])
        _draw_object(axes, example.query, BLACK, "-")
        axes.set_title(f"query: {example.query.label}", fontsize=7)
        for column, (item, distance) in enumerate(zip(example.neighbours, example.distances, strict=True)):
            right = item.label == example.query.label
            axes = figure.add_subplot(places[row, column + 2])
            _draw_object(axes, item, BLUE if right else VERMILION, "-" if right else (0, (3, 2)))
            axes.set_title(f"{RIGHT if right else WRONG} {item.label}  {distance:.2f}", fontsize=7)
    return figure


def _draw_object(axes: Axes, item: ShownObject, colour: str, dashes: str | tuple[int, tuple[int, int]]) -> None:
    height, width = item.picture.shape[:2]
    axes.imshow(np.clip(item.picture, 0, 1), extent=(0, width, height, 0), interpolation="nearest")
    if item.mask.any() and not item.mask.all():
        lines, columns = item.mask.shape
        x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(lines) + 0.5) * height / lines
        for outline, breadth in (("white", 1.8), ("black", 0.8)):  # seen on dark and on light
            axes.contour(x, y, item.mask, [0.5], colors=outline, linewidths=breadth)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=colour, linewidth=1.8, linestyle=dashes, capstyle="butt")

"""What the nearest objects of other images are, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.report.style import BLACK, BLUE, DOUBLE_COLUMN, VERMILION, style

RIGHT, WRONG = "\N{CHECK MARK}", "\N{BALLOT X}"


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
        _picture(axes, example.query, BLACK, "-")
        axes.set_title(f"query: {example.query.label}", fontsize=7)
        for column, (item, distance) in enumerate(zip(example.neighbours, example.distances, strict=True)):
            right = item.label == example.query.label
            axes = figure.add_subplot(places[row, column + 2])
            _picture(axes, item, BLUE if right else VERMILION, "-" if right else (0, (3, 2)))
            axes.set_title(f"{RIGHT if right else WRONG} {item.label}  {distance:.2f}", fontsize=7)
    return figure


def _picture(axes: Axes, item: ShownObject, colour: str, dashes: str | tuple[int, tuple[int, int]]) -> None:
    height, width = item.picture.shape[:2]
    axes.imshow(np.clip(item.picture, 0, 1), extent=(0, width, height, 0), interpolation="nearest")
    if item.mask.any() and not item.mask.all():
        lines, columns = item.mask.shape
        x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(lines) + 0.5) * height / lines
        for outline, breadth in (("white", 1.8), ("black", 0.8)):  # seen on dark and on light
            axes.contour(x, y, item.mask, [0.5], colors=outline, linewidths=breadth)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=colour, linewidth=1.8, linestyle=dashes, capstyle="butt")

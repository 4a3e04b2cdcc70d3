"""What results show in a notebook: figures of steps, and heat maps and sentences in HTML."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP
from diffprobe.report.choices import metric_name
from diffprobe.report.page import cell_colours, shortened
from diffprobe.report.report import Cell, Headed, HeatMap
from diffprobe.report.style import DOUBLE_COLUMN, SEQUENTIAL, colours_of, style
from diffprobe.report.wording import direction, rounded

if TYPE_CHECKING:
    import numpy as np

MOST_STEPS = 8  # of a figure's columns
CELL = "padding:2px 6px;text-align:right;font-variant-numeric:tabular-nums;"


@style()
def strip_figure(title: str, steps: Sequence[int], pictures: np.ndarray, maps: Mapping[str, np.ndarray]) -> Figure:
    """Pictures [steps, H, W, 3] in [0, 1] beside each other and, below, maps [steps, h, w] in the range of each row."""
    places = sorted({round(at * (len(steps) - 1) / (MOST_STEPS - 1)) for at in range(MOST_STEPS)})
    width = min(DOUBLE_COLUMN, 0.5 + 1.1 * len(places))
    side = (width - 0.5) / len(places)
    figure = Figure(figsize=(width, 0.5 + side * (1 + len(maps))), layout="compressed")
    panels = figure.subplots(1 + len(maps), len(places), squeeze=False)
    figure.suptitle(title, parse_math=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for column, place in enumerate(places):
        panels[0, column].imshow(pictures[place].clip(0, 1))
        panels[0, column].set_title(f"step {steps[place] + 1}")
        for row, values in enumerate(maps.values(), 1):
            panels[row, column].imshow(values[place], cmap=SEQUENTIAL, vmin=values.min(), vmax=values.max())
    for row, name in enumerate(maps, 1):
        panels[row, 0].set_ylabel(name)
    return figure


def findings_html(title: str, findings: Sequence[str | Headed], layers: Iterable[str] = ()) -> str:
    """A heading and a list of sentences, with the short names of `layers`, some under a heading of their own."""
    parts = [f"<h4>{escape(title)}</h4>"]
    for heading, lines in shortened(findings, layers):
        parts += [f"<p>{escape(heading)}</p>"] if heading else []
        parts.append(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")
    return "".join(parts)


def heat_map_html(heat: HeatMap) -> str:
    """Scores of layers (rows) and steps (columns, from 1) as a table in colours; a cell's title has its interval."""
    colours = cell_colours([cell.value for cell in heat.cells.values()], colours_of(heat.metric))
    short, steps = short_names(heat.layers), heat.steps
    head = "".join(f"<th style='{CELL}'>{'all' if step == NO_STEP else step + 1}</th>" for step in steps)
    rows = []
    for layer in heat.layers:
        cells = "".join(_cell(heat.cells.get((layer, step), Cell(None)), colours) for step in steps)
        rows.append(
            f"<tr><th style='{CELL}text-align:left' title='{escape(layer)}'>{escape(short[layer])}</th>{cells}</tr>"
        )
    score = f"{metric_name(heat.metric)}{direction(heat.metric)}"
    return (
        f"<p><b>{escape(heat.title)}</b>: {escape(score)} of every layer (rows) and step (columns)</p>"
        f"<div style='overflow-x:auto'><table style='border-collapse:collapse'><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(cell: Cell, colours: Mapping[float | None, tuple[str, str]]) -> str:
    if cell.value not in colours:
        return f"<td style='{CELL}'></td>"
    background, text = colours[cell.value]
    known = cell.low is not None and cell.high is not None
    title = f" title='{cell.low:.3f} to {cell.high:.3f}'" if known else ""
    return f"<td style='{CELL}background:{background};color:{text}'{title}>{rounded(cell.value)}</td>"


def figure_html(figure: Figure, caption: str = "") -> str:
    """A figure inside of the HTML, as PNG."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=120)
    data = b64encode(file.getvalue()).decode("ascii")
    return f"<img style='max-width:100%' alt='{escape(caption)}' src='data:image/png;base64,{data}'/>"


def in_notebooks(figure: Figure) -> Figure:
    """The same figure. Where IPython runs it learns to show figures, which it does only once pyplot has drawn one."""
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        from IPython.core.pylabtools import select_figure_formats

        try:
            shell.display_formatter.formatters["image/png"].lookup_by_type(Figure)
        except KeyError:
            select_figure_formats(shell, {"png"})
    return figure

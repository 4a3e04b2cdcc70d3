"""From a `Report` to report.html, by the template `page.html`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffprobe.report.columns import columns_of, notes_of
from diffprobe.report.html.images import figure_uri, picture_size, strip_uri
from diffprobe.report.names import short_names
from diffprobe.report.numbers import interval, is_number, rounded
from diffprobe.report.report import Cell, Frames, HeatMap, Report, Table
from diffprobe.report.style import SEQUENTIAL
from diffprobe.tables import NO_STEP

# The page may use what is in it, and nothing else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
MOST = 2000  # more rows are in the CSV file only
PIXELS_PER_INCH = 200  # of the figures, as style.save_figure writes them
MANY = 20  # more rows are folded away, and can be searched


def page_html(
    report: Report,
    figures: Mapping[str, Path] | None = None,
    asked: Sequence[tuple[str, str]] = (),
    reproduce: Sequence[tuple[str, str]] = (),
    configuration: str = "",
) -> str:
    """The page as text.

    Args:
        figures: name -> PNG file, of those figures that the page shows.
        asked, reproduce: (what, answer): what the configuration says beside `report.asked`, and how to do it again.
        configuration: the whole of it, folded away.
    """
    loader = PackageLoader("diffprobe.report", "html")
    jinja = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"identity": _identity, "strip": strip_uri, "rounded": rounded}
    css, script = (Markup(loader.get_source(jinja, name)[0]) for name in ("page.css", "page.js"))
    return jinja.get_template("page.html").render(
        policy=POLICY,
        css=css,
        script=script,
        title=report.title,
        findings=_shortened(report.findings, (layer for heat in report.heatmaps for layer in heat.layers)),
        asked=[*report.asked, *asked],
        heatmaps=[_heat_map(heat) for heat in report.heatmaps],
        examples=report.examples,
        figures=[_figure(report, name, path) for name, path in (figures or {}).items()],
        tables=[_table(name, table) for name, table in report.tables.items() if "page" in table.show],
        reproduce=reproduce,
        configuration=configuration,
    )


def _identity(title: str) -> str:
    return title.lower().replace(" ", "-")


def _shortened(lines: Sequence[str], layers: Iterable[str]) -> list[str]:
    """The lines with the short names of layers, as heat maps and tables of the page have them."""
    names = sorted(short_names(layers).items(), key=lambda pair: -len(pair[0]))  # none is cut by a shorter one
    shortened = list(lines)
    for name, short in names:
        shortened = [line.replace(name, short) for line in shortened]
    return shortened


def _figure(report: Report, name: str, path: Path) -> dict[str, Any]:
    """A figure at the size that it was drawn for."""
    width, height = picture_size(path)
    caption = report.figures[name].caption or name.replace("_", " ")
    shown = round(96 * width / PIXELS_PER_INCH)
    return {"uri": figure_uri(path), "caption": caption, "width": width, "height": height, "shown": shown}


def _table(name: str, table: Table) -> dict[str, Any]:
    columns, count = columns_of(table, MOST), len(table.data)
    return {
        "name": table.title or name,
        "count": f"{count} rows" if count <= MOST else f"the first {MOST} of {count} rows",
        "folded": count > MANY,
        "columns": columns,
        "rows": range(min(count, MOST)),
        "notes": notes_of(table),
        "described": [(column.heading, column.description) for column in columns if column.description],
    }


def _heat_map(heat: HeatMap) -> dict[str, Any]:
    """What the template draws, and what the script opens: of every cell its sentences, of every layer its pictures."""
    short, steps = short_names(heat.layers), heat.steps
    colours = _colours([cell.value for cell in heat.cells.values()])
    grid = {(layer, step): heat.cells.get((layer, step), Cell(None)) for layer in heat.layers for step in steps}
    sentences = {key: _sentences(heat, cell, short[key[0]], *key) for key, cell in grid.items()}
    return {
        "title": heat.title,
        "score": heat.score,
        "steps": [_step_name(step) for step in steps],
        "rows": [
            {
                "place": place,
                "layer": layer,
                "short": short[layer],
                "cells": [
                    {"value": grid[layer, step].value, "colours": colours.get(grid[layer, step].value)}
                    for step in steps
                ],
            }
            for place, layer in enumerate(heat.layers)
        ],
        "data": {
            "cells": [[sentences[layer, step] for step in steps] for layer in heat.layers],
            "films": [_strip(heat.frames.get(layer)) for layer in heat.layers],
            "beside": [{"name": name, **(_strip(frames) or {})} for name, frames in heat.beside.items()],
            "caption": heat.caption,
            "own": f"{heat.title}: probe",
        },
    }


def _sentences(heat: HeatMap, cell: Cell, short: str, layer: str, step: int) -> list[str]:
    where = short if step == NO_STEP else f"{short} at step {step + 1}"
    if not is_number(cell.value):
        return [f"{where}: no score.", f"Layer {layer}."]
    number = f" over {cell.n} images" if cell.n else ""
    score = f"{where}: {heat.score} {interval(cell.value, cell.low, cell.high, 3)}{number}."
    return [score, *cell.notes, f"Layer {layer}."]


def _strip(frames: Frames | None) -> dict[str, Any] | None:
    if frames is None:
        return None
    count, height, width = frames.values.shape[:3]
    return {"src": strip_uri(frames), "count": count, "ratio": f"{width}/{height}"}


def _colours(values: Sequence[float | None]) -> dict[float | None, tuple[str, str]]:
    """Of every score the ground, from its place between lowest and highest, and black or white to be read on it."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = sorted({value for value in values if is_number(value)})
    span = (known[-1] - known[0] or 1.0) if known else 1.0
    colours: dict[float | None, tuple[str, str]] = {}
    for value in known:
        rgb = np.array(colormaps[SEQUENTIAL]((value - known[0]) / span)[:3])
        colours[value] = (to_hex(rgb.tolist()), "#000" if _luminance(rgb) > 0.179 else "#fff")
    return colours


def _luminance(rgb: np.ndarray) -> float:
    """Relative luminance (WCAG 2.1); at 0.179 black and white have equal contrast."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _step_name(step: int) -> str:
    return "all" if step == NO_STEP else str(step + 1)

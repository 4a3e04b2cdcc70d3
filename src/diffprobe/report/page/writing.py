"""From a `Page` to report.html: one file that needs no other and no network.

A map of layers and steps whose cells open what belongs to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from diffprobe.report.names import short_names
from diffprobe.report.numbers import interval, rounded, there
from diffprobe.report.page.html import (
    Markup,
    data_block,
    example_slider,
    figure_uri,
    film_uri,
    joined,
    picture_size,
    sortable_table,
    tag,
)
from diffprobe.report.page.page import Cell, Film, HeatMap, Page
from diffprobe.report.style import SEQUENTIAL
from diffprobe.tables import NO_STEP
from diffprobe.writing import write_text

HINT = "Choose a cell to see its score, its interval and its pictures; arrow keys move between cells."


def heat_map(heat: HeatMap, identity: str) -> Markup:
    """A table of buttons, and a panel below it that the page's script fills."""
    short, steps = short_names(heat.layers), heat.steps
    colours = _colours([cell.value for cell in heat.cells.values()])
    head = tag("tr", tag("th", "layer", scope="col"), *(tag("th", _step_name(step), scope="col") for step in steps))
    body = []
    for place, layer in enumerate(heat.layers):
        cells = (
            _cell(heat, (layer, step), f"{short[layer]}, step {_step_name(step)}", colours, place, column)
            for column, step in enumerate(steps)
        )
        body.append(tag("tr", tag("th", short[layer], scope="row", title=layer), *cells))
    caption = tag("caption", f"{heat.score} by layer (down) and denoising step (across)")
    table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="cells")
    scroll = tag("div", table, class_="scroll")
    panel = tag("div", tag("p", HINT), class_="panel", id=f"{identity}-panel", aria_live="polite")
    data = data_block(_data(heat, short), class_="cells-data")
    return tag("section", tag("h3", heat.title), scroll, panel, data, class_="heat", id=identity)


def _cell(
    heat: HeatMap, key: tuple[str, int], name: str, colours: dict[float, tuple[str, str]], row: int, column: int
) -> Markup:
    cell = heat.cells.get(key)
    first = (row, column) == (0, 0)
    places = {"data_row": row, "data_column": column, "tabindex": 0 if first else -1}
    if cell is None or not there(cell.value):
        empty = tag("button", "\N{EN DASH}", type="button", aria_label=f"{name}: no score", class_="none", **places)
        return tag("td", empty)
    ground, ink = colours[cell.value]
    label = f"{name}: {rounded(cell.value)}"
    button = tag(
        "button", rounded(cell.value), type="button", aria_label=label, style=f"background:{ground};color:{ink}",
        **places,
    )  # fmt: skip
    return tag("td", button)


def _data(heat: HeatMap, short: dict[str, str]) -> dict[str, Any]:
    """Of every cell its sentences; of every layer its strip of pictures."""
    steps = heat.steps
    return {
        "cells": [[_sentences(heat, layer, step, short) for step in steps] for layer in heat.layers],
        "films": [_film(heat.films.get(layer)) for layer in heat.layers],
        "beside": [{"name": name, **(_film(film) or {})} for name, film in heat.beside.items()],
        "caption": heat.caption,
        "own": f"{heat.title}: probe",
    }


def _sentences(heat: HeatMap, layer: str, step: int, short: dict[str, str]) -> list[str]:
    cell = heat.cells.get((layer, step), Cell(None))
    where = f"{short[layer]} at step {_step_name(step)}" if step != NO_STEP else short[layer]
    if not there(cell.value):
        return [f"{where}: no score.", f"Layer {layer}."]
    number = f" over {cell.n} images" if cell.n else ""
    score = f"{where}: {heat.score} {interval(cell.value, cell.low, cell.high, 3)}{number}."
    return [score, *cell.notes, f"Layer {layer}."]


def _film(film: Film | None) -> dict[str, Any] | None:
    if film is None:
        return None
    count, height, width = film.frames.shape[:3]
    return {"src": film_uri(film), "count": count, "ratio": f"{width}/{height}"}


def _colours(values: list[float | None]) -> dict[float, tuple[str, str]]:
    """Of every score the ground, from its place between lowest and highest, and black or white to be read on it."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = sorted({value for value in values if there(value)})
    span = (known[-1] - known[0] or 1.0) if known else 1.0
    colours = {}
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


NAME = "report.html"
# The page may use what is in it, and nothing else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
PIXELS_PER_INCH = 200  # of the figures, as style.save_figure writes them


def write_page(folder: Path, page: Page) -> Path:
    """Writes report.html into a run folder, with its whole configuration where that is recorded; returns its path."""
    recorded = folder / ".hydra" / "config.yaml"
    configuration = recorded.read_text(encoding="utf-8") if recorded.exists() else ""
    return write_text(folder / NAME, page_html(page, configuration))


def page_html(page: Page, configuration: str = "") -> str:
    """The page as text; `configuration` is shown folded away."""
    sections = list(_sections(page, configuration))
    links = (tag("li", tag("a", title, href=f"#{_identity(title)}")) for title, _ in sections)
    header = tag("header", tag("h1", page.title), tag("nav", tag("ul", *links), aria_label="sections"))
    main = tag("main", *(_section(title, content) for title, content in sections))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", page.title),
        tag("style", Markup(_asset("page.css"))),
    )
    body = tag("body", header, main, tag("script", Markup(_asset("page.js"))))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _sections(page: Page, configuration: str) -> Iterator[tuple[str, Markup]]:
    """Title and content of what there is, in the order in which it is read."""
    if page.verdict:
        yield "Verdict", tag("ul", *(tag("li", line) for line in page.verdict), class_="verdict")
    if page.asked:
        yield "What was asked", _answers(page.asked)
    if page.heat_maps:
        yield "Where and when", joined(*(heat_map(heat, f"heat-{at}") for at, heat in enumerate(page.heat_maps, 1)))
    if page.examples:
        sliders = (example_slider(example, f"example-{at}") for at, example in enumerate(page.examples, 1))
        yield "Step by step", joined(*sliders)
    if page.figures:
        yield "Figures", joined(*(_figure(name, *shown) for name, shown in page.figures.items()))
    if page.tables:
        tables = enumerate(page.tables.items(), 1)
        hint = tag("p", "A heading sorts by its column, once more the other way round.", class_="hint")
        yield "Tables", joined(hint, *(sortable_table(name, rows, f"table-{at}") for at, (name, rows) in tables))
    if page.reproduce:
        whole = tag("details", tag("summary", "the whole configuration"), tag("pre", configuration))
        yield "How to reproduce it", joined(_answers(page.reproduce), *([whole] if configuration else []))


def _section(title: str, content: Markup) -> Markup:
    return tag("section", tag("h2", title), content, id=_identity(title))


def _identity(title: str) -> str:
    return title.lower().replace(" ", "-")


def _answers(answers: Sequence[tuple[str, str]]) -> Markup:
    pairs = (joined(tag("dt", what), tag("dd", _answer(what, answer))) for what, answer in answers)
    return tag("dl", *pairs)


def _answer(what: str, answer: str) -> Markup:
    return tag("code", answer) if what == "command" else joined(answer)


def _figure(name: str, path: Path, caption: str) -> Markup:
    width, height = picture_size(path)
    shown = f"width:{96 * width / PIXELS_PER_INCH:.0f}px"  # at the size it was drawn for
    picture = tag("img", src=figure_uri(path), alt=caption or name, width=width, height=height, style=shown)
    return tag("figure", picture, tag("figcaption", caption or name), class_="figure")


def _asset(name: str) -> str:
    return (files("diffprobe.report.html") / name).read_text(encoding="utf-8")

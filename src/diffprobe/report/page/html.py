"""Elements of HTML, escaped where they are made.

Pictures as data URIs: figures as they are, and films as one strip of all their frames.

One image as it is denoised: films side by side, moved by one slider.

Rows of a data class as a table that sorts by its headings.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from operator import attrgetter
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from diffprobe.report.names import short_names
from diffprobe.report.numbers import interval, short_power, there
from diffprobe.report.page.page import Example, Film
from diffprobe.tables import NO_STEP, Step

VOID = frozenset({"img", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML already; any other string is escaped."""

    __slots__ = ()


def tag(element: str, *children: str, **attributes: str | float | bool | None) -> Markup:
    """`<element attributes>children</element>`.

    Attribute names have '_' for '-', and a '_' at the end where Python has the word itself (`class_`). An attribute
    that is None or False is left out, one that is True has no value.
    """
    written = "".join(
        _attribute(name, value) for name, value in attributes.items() if value is not None and value is not False
    )
    if element in VOID:
        return Markup(f"<{element}{written}>")
    return Markup(f"<{element}{written}>{joined(*children)}</{element}>")


def joined(*children: str) -> Markup:
    """Children one after another."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child, quote=False) for child in children))


def data_block(value: Any, **attributes: str) -> Markup:
    """JSON for scripts to read; no text in it can end its element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return tag("script", Markup(text), type="application/json", **attributes)


def _attribute(name: str, value: str | float | bool | None) -> str:
    written = name.rstrip("_").replace("_", "-")
    return f" {written}" if value is True else f' {written}="{escape(str(value))}"'


LARGEST = 160  # pixels a side of a frame; larger ones are made smaller
LOSSLESS = 64  # up to so many pixels a side pictures are PNG, and above JPEG
LARGE = 400_000  # bytes of a figure
QUALITY = 85  # of JPEG


def figure_uri(path: Path) -> str:
    """A PNG file; a large one, which has photographs in it, as JPEG."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) <= LARGE:
        return _uri("png", content)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        opened.convert("RGB").save(buffer, "jpeg", quality=QUALITY)
    return _uri("jpeg", buffer.getvalue())


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        return opened.size


def film_uri(film: Film) -> str:
    """All frames side by side, the first on the left: maps as PNG with a palette, pictures as PNG or JPEG."""
    from PIL import Image

    frames = film.frames
    if frames.ndim == 3:
        strip = Image.fromarray(np.concatenate(_levels(film), 1))
        strip.putpalette(_palette(film.colours))
    else:
        levels = (np.nan_to_num(frames).clip(0, 1) * 255).round().astype(np.uint8)
        strip = Image.fromarray(np.concatenate(list(levels), 1))
    height, width = frames.shape[1:3]
    shrunk = LARGEST / max(height, width)
    if shrunk < 1:
        size = (max(1, round(width * shrunk)) * len(frames), max(1, round(height * shrunk)))
        strip = strip.resize(size, Image.Resampling.NEAREST if frames.ndim == 3 else Image.Resampling.BOX)
    kind = "png" if frames.ndim == 3 or max(height, width) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    strip.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": QUALITY}))
    return _uri(kind, buffer.getvalue())


def frame(film: Film, description: str, at: int = 0) -> Markup:
    """The window on a film: one frame of it, moved by the page's script."""
    count, height, width = film.frames.shape[:3]
    style = f"--count:{count};--at:{at if count > 1 else 0};aspect-ratio:{width}/{height}"
    strip = tag("img", src=film_uri(film), alt="")
    return tag("div", strip, class_="frame", role="img", aria_label=description, data_count=count, style=style)


def _levels(film: Film) -> np.ndarray:
    """The frames as places in the palette; what has no value is the lowest."""
    span = (film.high - film.low) or 1.0
    shares = np.nan_to_num((np.asarray(film.frames, float) - film.low) / span)
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)


def _palette(colours: str) -> list[int]:
    from matplotlib import colormaps

    return (colormaps[colours](np.arange(256))[:, :3] * 255).round().astype(int).ravel().tolist()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"


def example_slider(example: Example, identity: str) -> Markup:
    """Starts at the last step, so that a page without scripts, or on paper, shows the finished image."""
    last = len(example.steps) - 1
    numbers = " ".join(str(step + 1) for step in example.steps)
    slider = tag(
        "input", type="range", min=0, max=last, step=1, value=last, id=f"{identity}-at", data_steps=numbers,
        aria_valuetext=f"step {example.steps[last] + 1}",
    )  # fmt: skip
    output = tag("output", str(example.steps[last] + 1), for_=f"{identity}-at")
    label = tag("label", "denoising step ", output, for_=f"{identity}-at")
    films = (
        tag("figure", frame(film, f"{name}: {example.title}", last), tag("figcaption", name), class_="picture")
        for name, film in example.films.items()
    )
    controls = tag("div", label, slider, class_="controls")
    pictures = tag("div", *films, class_="pictures")
    return tag("section", tag("h3", example.title), controls, pictures, class_="slider", id=identity)


MOST = 2000  # more rows are in the CSV file only
MANY = 20  # more rows are folded away, and can be searched
CENTRES = ("mean", "difference", "value")  # told with their `low` and `high` in one cell
HEADINGS = {"p_holm": "p (Holm)", "log10_p": "log10 p"}


@dataclass(frozen=True)
class _Column:
    """A heading, and of a row its text and what it is sorted by (None: last)."""

    heading: str
    text: Callable[[Any], str]
    key: Callable[[Any], str | float | None]
    numeric: bool


def sortable_table(name: str, rows: Sequence[Any], identity: str) -> Markup:
    """The fields that have a value in some row; intervals in the cell of their mean; steps counted from 1.

    Texts that are the same in all rows are in the caption.
    """
    if not rows:
        return tag("p", f"{name}: no rows.")
    short = short_names(getattr(row, field.name) for field in fields(rows[0]) if "layer" in field.name for row in rows)
    shown, columns = rows[:MOST], _columns(rows, short)
    head = tag("tr", *(_heading(column) for column in columns))
    body = (tag("tr", *(_cell(column, row) for column in columns)) for row in shown)
    shared = ", ".join(f"{name.replace('_', ' ')} {short.get(value, value)}" for name, value in _shared(rows).items())
    caption = tag("caption", f"In all rows: {shared}.") if shared else ""
    table = tag("table", caption, tag("thead", head), tag("tbody", *body), class_="sortable", id=identity)
    scroll = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=f"table {name}")
    count = f"{len(rows)} rows" if len(rows) == len(shown) else f"the first {MOST} of {len(rows)} rows"
    if len(rows) <= MANY:
        return tag("section", tag("h3", name), scroll)
    search = tag("input", type="search", data_searches=identity, id=f"{identity}-search")
    label = tag("label", "rows with ", search, for_=f"{identity}-search", class_="search")
    return tag("details", tag("summary", tag("h3", name), f" {count}"), label, scroll)


def _heading(column: _Column) -> Markup:
    return tag(
        "th", tag("button", column.heading, type="button"), scope="col", class_="number" * column.numeric or None
    )


def _cell(column: _Column, row: Any) -> Markup:
    key = column.key(row)
    value = key if column.numeric and key is not None else None
    return tag("td", column.text(row), class_="number" * column.numeric or None, data_value=value)


def _columns(rows: Sequence[Any], short: Mapping[str, str]) -> list[_Column]:
    """A column for each field that is to be seen; `low` and `high`, and `x_low` and `x_high`, are told with theirs."""
    types = get_type_hints(type(rows[0]), include_extras=True)
    names = [field.name for field in fields(rows[0]) if any(_filled(getattr(row, field.name)) for row in rows)]
    ends = _ends(names)
    told = {end for pair in ends.values() for end in pair} | set(_shared(rows))
    columns = []
    for name in (name for name in names if name not in told):
        heading = HEADINGS.get(name, name.replace("_", " "))
        if name in ends:
            columns.append(_Column(f"{heading} [95 %]", _with_interval(name, *ends[name]), attrgetter(name), True))
        elif types[name] == Step:
            columns.append(_Column(heading, _step_text(name), _step(name), True))
        elif types[name] is str:
            columns.append(_Column(heading, _named(name, short), attrgetter(name), False))
        else:
            columns.append(_Column(heading, _number_text(name), attrgetter(name), True))
    return columns


def _ends(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The fields with an interval, and those of its ends."""
    ends = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= set(names)}
    centre = next((name for name in CENTRES if name in names), None)
    return ends | ({centre: ("low", "high")} if centre and {"low", "high"} <= set(names) else {})


def _shared(rows: Sequence[Any]) -> dict[str, str]:
    """The texts that are the same in every row, of several."""
    texts = {field.name: {getattr(row, field.name) for row in rows} for field in fields(rows[0])}
    alike = {name: values.pop() for name, values in texts.items() if len(values) == 1}
    return {name: value for name, value in alike.items() if isinstance(value, str) and value} if len(rows) > 1 else {}


def _filled(value: Any) -> bool:
    return value not in (None, "", NO_STEP)


def _with_interval(centre: str, low: str, high: str) -> Callable[[Any], str]:
    return lambda row: interval(getattr(row, centre), getattr(row, low), getattr(row, high), 3)


def _step(name: str) -> Callable[[Any], float | None]:
    return lambda row: None if getattr(row, name) == NO_STEP else getattr(row, name) + 1


def _step_text(name: str) -> Callable[[Any], str]:
    return lambda row: "" if getattr(row, name) == NO_STEP else str(getattr(row, name) + 1)


def _named(name: str, short: Mapping[str, str]) -> Callable[[Any], str]:
    return lambda row: short.get(getattr(row, name), getattr(row, name))


def _number_text(name: str) -> Callable[[Any], str]:
    def text(row: Any) -> str:
        value = getattr(row, name)
        if isinstance(value, float):
            return short_power(f"{value:.4g}") if there(value) else ""
        return "" if value is None else str(value)

    return text

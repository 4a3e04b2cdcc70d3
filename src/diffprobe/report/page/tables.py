"""Rows of a data class as a table that sorts by its headings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, get_type_hints

from diffprobe.report.names import short_names
from diffprobe.report.numbers import interval, short_power, there
from diffprobe.report.page.html import Markup, tag
from diffprobe.tables import NO_STEP, Step

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

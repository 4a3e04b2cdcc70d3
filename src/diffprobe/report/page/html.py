"""Elements of HTML, escaped where they are made."""

from __future__ import annotations

import json
from html import escape
from typing import Any

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

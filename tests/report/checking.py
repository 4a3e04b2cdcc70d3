"""Reads a page as a browser would have to: nesting, identities, and addresses outside of the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = frozenset({"img", "input", "link", "meta"})

ADDRESSES = ("src", "href", "action", "poster", "data", "srcset")


class Checked(HTMLParser):
    """
    Attributes:
        faults: what is wrong with the nesting.
        identities: every id, as often as it is given.
        outside: addresses that are neither data nor places of the page.
        elements: (name, attributes) of every element.
        text: all text but that of scripts and styles.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.identities: list[str] = []
        self.outside: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.faults += [f"{name} is never closed" for name in self._open]

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        self.identities += [given["id"]] if "id" in given else []
        self.outside += [
            value for name, value in given.items() if name in ADDRESSES and not value.startswith(("data:", "#"))
        ]
        self.outside += re.findall(r"url\(|https?://", given.get("style", ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"{tag} is closed where it is not the innermost")

    def handle_data(self, data):
        if self._open[-1:] in (["script"], ["style"]):
            self.outside += re.findall(r"url\([^)]*\)|@import|https?://\S+|fetch\(|XMLHttpRequest", data)
        else:
            self.text += data

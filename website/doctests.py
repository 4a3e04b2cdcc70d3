"""Examples in docstrings as code: they are written bare, `>>> ...`, which Markdown takes for quotations."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


class Doctests(Extension):
    """Puts the examples of every docstring into blocks."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called by griffe with everything that it has read."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)

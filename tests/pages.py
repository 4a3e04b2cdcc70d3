"""The pages that people read, with their blocks of code and words of code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```+ *(\w*)[^\n]*\n(.*?)^```+ *$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page: its path in the repository, and its Markdown; of a notebook the text and code of its cells."""

    path: str
    text: str

    def blocks(self, *languages: str) -> list[str]:
        """The blocks of code in these languages ('' for none)."""
        return [match[2] for match in _FENCE.finditer(self.text) if match[1] in languages]

    @property
    def prose(self) -> str:
        """The text without blocks of code."""
        return _FENCE.sub("", self.text)

    @property
    def words(self) -> list[str]:
        """What stands between single backticks."""
        return [" ".join(word.split()) for word in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings, as GitHub and the site make them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading).lower() for heading in headings)
        return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@cache
def pages() -> list[Page]:
    """All of them."""
    found = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("src/**/*.md")]
    read = [Page(path.relative_to(ROOT).as_posix(), path.read_text()) for path in found]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
        text = "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells)
        read.append(Page(path.relative_to(ROOT).as_posix(), text))
    return read

"""Notebooks as pages: their text, code and outputs, which are kept in the .ipynb files. Nothing is run."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

_CONTROL = re.compile(r"\x1b\[[0-9;]*m")  # colours of a terminal
_STYLE = re.compile(r"<style.*?</style>\s*", re.DOTALL)


def page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in _joined(cell["outputs"]):
            parts.append(_shown(output, f"{path.stem}_{len(pictures) + 1}.png", pictures))
    parts.append(f"*This page is `notebooks/{path.name}`: open it in Jupyter to run it.*")
    return "\n\n".join(parts) + "\n", pictures


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs with the lines that a cell printed one after the other as one."""
    joined: list[dict[str, Any]] = []
    for output in outputs:
        if joined and output["output_type"] == joined[-1]["output_type"] == "stream":
            joined[-1] = {**output, "text": [*joined[-1]["text"], *output["text"]]}
        else:
            joined.append(output)
    return joined


def _shown(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "image/png" in data:
        pictures[name] = base64.b64decode("".join(data["image/png"]))
        return f"![output of the cell above]({name}){{ .output }}"
    if "text/html" in data:
        lines = (line.strip() for line in _STYLE.sub("", "".join(data["text/html"])).splitlines())
        return f'<div class="output">{"".join(f"{line} " for line in lines if line)}</div>'
    text = _CONTROL.sub("", "".join(data["text/plain"])).rstrip()
    return f"```{{ .text .output }}\n{text}\n```"

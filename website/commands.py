"""The reference of commands: `python -m diffprobe...`, read from their source without importing what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from text import plain

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"


def page() -> str:
    """train.py, analyze.py and every module that can be run, with its arguments."""
    lines = [
        "# Commands",
        "",
        "`python train.py` runs the main study, `python analyze.py` every other analysis. Both take",
        "[settings](settings.md); `--help` of either lists them all.",
        "",
    ]
    for path in runnable():
        module = ast.parse(path.read_text())
        name = ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__main__")
        text = plain(ast.get_docstring(module) or "")
        lines += [f"## python -m {name}", "", text, ""]
        rows = [f"| `{' '.join(flags)}` | {told} |" for flags, told in _arguments(module)]
        lines += ["| argument | meaning |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join(lines)


def runnable() -> list[Path]:
    """The modules of the package that are commands."""
    return [path for path in sorted(SRC.rglob("*.py")) if '__name__ == "__main__"' in path.read_text()]


def _arguments(module: ast.Module) -> Iterator[tuple[list[str], str]]:
    """Names and help of every argument that the module adds to its parser."""
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
            flags = [each.value for each in call.args if isinstance(each, ast.Constant)]
            told = next((_text(each.value) for each in call.keywords if each.arg == "help"), "")
            yield [str(flag) for flag in flags], plain(told)


def _text(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value).replace("%%", "%")
    if isinstance(value, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in value.values)
    return ""

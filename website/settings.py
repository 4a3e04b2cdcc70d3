"""The reference of settings: every group of conf/, its choices and their keys, from YAML files and docstrings."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml
from text import plain

from diffprobe.parts import Part
from diffprobe.ranges import Choice, OneOrMore, WordOr, described, shown
from diffprobe.runs.settings import AnalysisJobSettings
from diffprobe.signatures import _find, signature_of

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
_KEY = re.compile(r"^ *(\w+):[^#\n]*?#\s*(.+)$", re.MULTILINE)
_RUN = ("train", "analyze")


def groups() -> list[str]:
    """Every group with choices, presets and the small sizes of `debug` left out."""
    folders = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    return sorted(name for name in folders if name != "." and name.split("/")[0] not in ("experiment", "debug"))


def choices_of(group: str) -> list[Path]:
    """The files of a group."""
    return sorted((CONF / group).glob("*.yaml"))


def groups_page() -> str:
    """Each group: its choices, and the keys that they have, with what they take."""
    lines = [
        "# Settings",
        "",
        "A run is composed of one choice of each group, `GROUP=CHOICE`, and single keys, `GROUP.KEY=VALUE`",
        "([how to choose](../choosing.md)). What is in bold is what `train.py` takes if nothing is typed.",
        "",
        *_keys_of_run(),
    ]
    for group in groups():
        lines += _group(group)
    return "\n".join(lines)


def presets_page() -> str:
    """The files of the group `experiment`, which are documents of their own: commands, times and published numbers."""
    lines = ["# Presets", "", "`experiment=NAME` sets what a study needs. What is typed beside it wins.", ""]
    for path in sorted((CONF / "experiment").rglob("*.yaml")):
        name = path.relative_to(CONF / "experiment").with_suffix("").as_posix()
        if not name.endswith("/base"):
            text = path.read_text().removeprefix("# @package _global_\n").rstrip()
            lines += [f"## experiment={name}", "", f"```yaml\n{text}\n```", ""]
    return "\n".join(lines)


def _keys_of_run() -> Iterator[str]:
    for name in _RUN:
        text = (CONF / f"{name}.yaml").read_text().rstrip()
        yield from (f'??? abstract "All that {name}.py starts from: conf/{name}.yaml"', "")
        yield from (f"    {line}".rstrip() for line in ["```yaml", *text.splitlines(), "```", ""])


def _group(group: str) -> Iterator[str]:
    chosen = {key: value for item in _loaded(CONF / "train.yaml")["defaults"] for key, value in _choice(item).items()}
    classes = {path: _class(path, group) for path in choices_of(group)}
    several = len(set(filter(None, classes.values()))) > 1
    yield from (f"## {group}", "")
    yield from () if several or not any(classes.values()) else (f"Class: `{next(filter(None, classes.values()))}`", "")
    yield from (
        ("| choice | what | class |", "| --- | --- | --- |") if several else ("| choice | what |", "| --- | --- |")
    )
    for path, target in classes.items():
        name = f"**`{path.stem}`**" if chosen.get(group) == path.stem else f"`{path.stem}`"
        yield f"| {name} | {plain(_header(path))} |" + (f" {f'`{target}`' if target else ''} |" if several else "")
    yield ""
    keys = _keys(group, classes)
    if keys:
        yield from (f"| `{group.replace('/', '.')}.` | in the choices | takes | meaning |", "| --- | --- | --- | --- |")
        for key, each in sorted(keys.items()):
            values = ", ".join(plain(f"`{value}`") for value in dict.fromkeys(each.values))
            told = [text for text in each.means if text]
            means = min(told, key=lambda text: text.startswith("or "), default="")  # "or x": other values, told already
            yield f"| `{key}` | {values} | {plain(', '.join(dict.fromkeys(each.takes)))} | {plain(means)} |"
        yield ""


@dataclass
class _Key:
    """What the choices of a group say of a key: its values in their files, what it takes, what it means."""

    values: list[str] = field(default_factory=list)
    takes: list[str] = field(default_factory=list)
    means: list[str] = field(default_factory=list)


def _keys(group: str, classes: dict[Path, str]) -> dict[str, _Key]:
    """The keys in the files of a group, and the arguments of its classes that can be typed besides."""
    keys: dict[str, _Key] = {}
    for path, target in classes.items():
        for name, value in _content(path, group).items():
            if name not in ("defaults", "hydra", "_target_", "_partial_"):
                keys.setdefault(name, _Key()).values.append(shown(value))
                keys[name].means.append(_comments(path).get(name, ""))
        signature = signature_of(target, imported=False) if target.startswith("diffprobe.") else None
        for name, argument in signature.arguments.items() if signature else ():
            words = takes(argument.hint)
            if name in keys or (words and name not in _given(group)):
                keys.setdefault(name, _Key()).takes.extend([words] if words else [])
                keys[name].means.append(_documented(target).get(name, ""))
    return keys


def _given(group: str) -> set[str]:
    """The arguments that the run gives to the class of a group, which nobody types."""
    hint = get_type_hints(AnalysisJobSettings, include_extras=True).get(group)
    return {name for note in get_args(hint)[1:] if isinstance(note, Part) for name in note.given}


def _choice(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else {}


def _content(path: Path, group: str) -> dict[str, Any]:
    content = _loaded(path)
    return content.get(group, content)  # of a file that sets other groups too


def _class(path: Path, group: str) -> str:
    """The class of a choice, or of the file that it builds on; of callbacks and the like each that it holds."""
    content = _content(path, group)
    nested = [each["_target_"] for each in content.values() if isinstance(each, dict) and "_target_" in each]
    return content.get("_target_", "") or ", ".join(nested) or _inherited(path)


def takes(hint: Any) -> str:
    """A type hint with its ranges in words; '' where it says nothing to a reader."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [takes(option) for option in get_args(hint) if option is not type(None)]
        options += ["null"] if type(None) in get_args(hint) else []
        return " or ".join(dict.fromkeys(filter(None, options)))
    notes = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    for note in notes:
        if isinstance(note, Choice):
            return f"one of {', '.join(note.options)}"
        if isinstance(note, WordOr):
            return " or ".join(filter(None, [*note.words, takes(note.hint)]))
        if isinstance(note, OneOrMore):
            return f"{takes(note.hint)}; or a list"
    words = described(hint)
    return "" if words == "a value" else words


def _loaded(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()) or {}


def _header(path: Path) -> str:
    """The comment that a file begins with, without Hydra's directive."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    told = []
    for line in lines:
        if not line.startswith("#"):
            break
        told.append(line.removeprefix("#").strip())
    return " ".join(told)


def _comments(path: Path) -> dict[str, str]:
    return {match[1]: match[2].strip() for match in _KEY.finditer(path.read_text())}


def _inherited(path: Path) -> str:
    """The class of the file of the same group that a choice builds on."""
    for item in _loaded(path).get("defaults", ()):
        base = path.parent / f"{item}.yaml"
        if isinstance(item, str) and item != "_self_" and base.is_file():
            return _loaded(base).get("_target_", "") or _inherited(base)
    return ""


def _documented(target: str) -> dict[str, str]:
    """The lines under `Args:` of a class or function, by argument."""
    found = _find(target) if target else None
    if not found or not isinstance(found[1], ast.ClassDef | ast.FunctionDef):
        return {}
    statements = [found[1], *(each for each in found[1].body if isinstance(each, ast.FunctionDef))]
    told: dict[str, str] = {}
    for statement in statements if isinstance(found[1], ast.ClassDef) else statements[:1]:
        text = ast.get_docstring(statement) or ""
        of_arguments = re.search(r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
        for match in re.finditer(
            r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", of_arguments[1] if of_arguments else "", re.MULTILINE
        ):
            told.setdefault(match[1], " ".join(match[2].split()))
    return told

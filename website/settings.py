"""The reference of settings: every group of conf/, its choices and their keys, from YAML files and docstrings."""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from text import plain

from diffprobe.ranges import Choice, OneOrMore, WordOr, described, shown
from diffprobe.signatures import Signature, _find, signature_of

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
    taken = {
        key: value
        for item in _loaded(CONF / "train.yaml")["defaults"]
        if isinstance(item, dict)
        for key, value in item.items()
    }
    yield from (f"## {group}", "", "| choice | what | class |", "| --- | --- | --- |")
    keys: dict[str, dict[str, list[str]]] = {}
    for path in choices_of(group):
        content = _loaded(path)
        content = content.get(group, content)  # of a file that sets other groups too
        nested = [each["_target_"] for each in content.values() if isinstance(each, dict) and "_target_" in each]
        target = content.get("_target_", "") or ", ".join(nested)
        name = f"**`{path.stem}`**" if taken.get(group) == path.stem else f"`{path.stem}`"
        yield f"| {name} | {plain(_header(path))} | {f'`{target}`' if target else ''} |"
        for key, value in content.items():
            if key not in ("defaults", "hydra", "_target_", "_partial_"):
                of_key = keys.setdefault(key, {"values": [], "takes": [], "means": []})
                of_key["values"].append(shown(value))
                signature = _signature(target) or _signature(_inherited(path))
                if signature and key in signature.arguments:
                    of_key["takes"].append(takes(signature.arguments[key].hint))
                of_key["means"].append(_comments(path).get(key) or _documented(target or _inherited(path)).get(key, ""))
    yield ""
    if keys:
        yield from (f"| `{group.replace('/', '.')}.` | in the choices | takes | meaning |", "| --- | --- | --- | --- |")
        for key, each in sorted(keys.items()):
            values = ", ".join(plain(f"`{value}`") for value in dict.fromkeys(each["values"]))
            means = next((text for text in each["means"] if text), "")
            yield f"| `{key}` | {values} | {plain(', '.join(dict.fromkeys(each['takes'])))} | {plain(means)} |"
        yield ""


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


def _signature(target: str) -> Signature | None:
    return signature_of(target, imported=False) if target else None


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

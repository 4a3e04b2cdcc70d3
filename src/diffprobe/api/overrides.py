"""Arguments of Python as settings are typed on a command line, so that both are checked by the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffprobe.errors import UserError


def typed(settings: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` of every setting that is not None, as a command takes it.

    >>> typed({"property.names": ["depth"], "data.prompts": "my list.csv", "seed": None, "trainer.devices": 1})
    ['property.names=[depth]', "data.prompts='my list.csv'", 'trainer.devices=1']
    """
    return [f"{key}={_written(value, key)}" for key, value in settings.items() if value is not None]


def _written(value: Any, key: str) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _quoted(str(value))
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_written(inner, key)}" for name, inner in value.items()) + "}"
    if isinstance(value, Sequence | range):
        return "[" + ",".join(_written(inner, key) for inner in value) + "]"
    if hasattr(value, "item"):  # a number of numpy or torch
        return _written(value.item(), key)
    raise UserError(f"{key}={value!r}: give a number, a text, or a list or dictionary of these")


def _quoted(text: str) -> str:
    """A text, in quotation marks where Hydra would read something else."""
    reads_otherwise = text.lower() in ("null", "true", "false", "nan", "inf", "infinity")
    if re.fullmatch(r"[A-Za-z_/][\w./-]*", text, re.ASCII) and not reads_otherwise:
        return text
    # OmegaConf looks up ${...}, and Hydra reads a backslash before a quotation mark, or at the end, as one that escapes
    looked_up = re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), looked_up) + "'"


def as_list(value: Any) -> list[Any] | None:
    """One value as a list of it; None stays None."""
    if value is None:
        return None
    return [value] if isinstance(value, str | Path | int) or not isinstance(value, Sequence) else list(value)


def choice_or_names(group: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The setting of a group that is given by the name of a choice, or by a list of names."""
    if isinstance(value, str):
        yield group, value
    elif value is not None:
        yield f"{group}.names", list(value)

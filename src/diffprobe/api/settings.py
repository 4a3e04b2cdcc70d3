"""Arguments of Python as settings are typed on a command line, so that both are checked by the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.cli.composing import compose_typed
from diffprobe.cli.conf import conf_folders
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


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


def choices_of(group: str) -> list[str]:
    """The choices of a group of the configuration."""
    return sorted({path.stem for folder in conf_folders() for path in (folder / group).glob("*.yaml")})


def compose_settings(script: str, overrides: Sequence[str]) -> tuple[tuple[DictConfig, DictConfig], Any]:
    """What a script composes of overrides (settings, Hydra's), and the settings checked.

    Raises:
        UserError: as the script says in one line.
    """
    from diffprobe.cli.errors import explanation
    from diffprobe.runs.settings import check_analysis, checked

    commands = [item for item in overrides if item.startswith(("-", "hydra", "dry_run", "gather=", "run="))]
    if commands:
        raise UserError(f"{commands[0]} is for commands; in Python, result.save(FOLDER) writes a run folder")
    try:
        composed = compose_typed(overrides, script)
        return composed, (checked if script == "train" else check_analysis)(composed[0])
    except UserError:
        raise
    except Exception as error:  # Hydra's
        line = explanation(error, script)
        if line is None:
            raise
        raise UserError(line) from error

"""What a person typed is what a run does: a choice that something else overrules is refused, with the key to type.

Hydra composes groups first and then what presets say of single keys, so that a preset (or an analysis) which sets a key
of a group would overrule the choice that was typed for it, without a word. The presets of this package say such things
by choices; this holds those of others to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.errors import UserError
from diffprobe.parts import check_recorded
from diffprobe.ranges import shown

GLOBAL = "# @package _global_"


def check_typed(config: DictConfig, hydra: Any) -> None:
    """Holds the composed configuration against the overrides that were typed.

    Raises:
        UserError: a run folder without a name; several choices of a group; a choice that something overrules; a mapping
            typed empty, or the learning rate of what is not trained, without effect; a class that is not this package's
            in a configuration that lies in a run folder (`-cp RUN/.hydra`), which may be a stranger's.
    """
    sources = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    if any(path.resolve().name == ".hydra" for path in sources):
        check_recorded(config)
    overrides: Any = OmegaConf.to_container(hydra.overrides, resolve=False)  # words, whatever ${} they hold
    typed = [item.lstrip("+~").partition("=") for item in overrides["task"]]
    empty = [item for item in overrides["hydra"] if re.fullmatch(r"hydra\.(run|sweep)\.dir=(''|\"\")?", item)]
    if empty:
        raise UserError(f"{empty[0]} names no folder; give {empty[0].partition('=')[0]}=FOLDER, or leave it out")
    for group in hydra.runtime.choices:
        chosen = [value for key, _, value in typed if key == group]
        if len(set(chosen)) > 1:
            raise UserError(f"{group} is given twice, {chosen[0]} and {chosen[-1]}; leave one of them out")
    keys = [key for key, _, _ in typed if key not in hydra.runtime.choices]
    _check_rates([key for key, _, _ in typed], config)
    for key, _, value in typed:
        if value[:1] in ("[", "{") and any((folder / key).is_dir() for folder in sources):
            raise UserError(f"{key}={value}: a group has one choice; write {key}=CHOICE")
        if key in hydra.runtime.choices and "@" not in key:
            _check_choice(key, value.strip("'\""), config, sources, keys)
        elif value.replace(" ", "") == "{}" and OmegaConf.select(config, key):
            names = ", ".join(map(str, OmegaConf.select(config, key)))
            raise UserError(
                f"{key}={{}} changes nothing, since what is typed is added to what is there ({names}); "
                f"leave one out with ~{key}.NAME"
            )


def _check_rates(typed: Sequence[str], config: DictConfig) -> None:
    """Raises UserError for a learning rate that nothing is trained with: a search over it would compare equals."""
    for key in typed:
        section, _, name = key.rpartition(".")
        if section != "probe.learning_rates":
            continue
        solver, names = OmegaConf.select(config, "probe.solver"), OmegaConf.select(config, "property.names") or ()
        if solver != "adam":
            raise UserError(f"{key} has no effect: probe.solver={shown(solver)} knows no learning rate (adam does)")
        if name not in names:
            raise UserError(f"{key} has no effect: property.names={shown(names)} has no {name}")


def _check_choice(group: str, choice: str, config: DictConfig, folders: Sequence[Path], typed: Sequence[str]) -> None:
    """Raises UserError where the configuration has another value than a choice says, and that was not typed."""
    for key, value in _said(group, choice, folders):
        if any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in typed):
            continue
        found = _plain(OmegaConf.select(config, key, throw_on_missing=False))
        if found != value and not _depends(value):
            raise UserError(
                f"{group}={choice} says {key}={shown(value)}, and a preset or another choice makes it {shown(found)}; "
                f"type {key}=VALUE for the one that is meant, or leave the other out"
            )


def _said(group: str, choice: str, folders: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """The keys that the file of a choice sets, and their values; nothing where it is not a file."""
    path = next((path for folder in folders if (path := folder / group / f"{choice}.yaml").is_file()), None)
    if path is None or group == "experiment":
        return
    text = path.read_text(encoding="utf-8")
    content: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    own = {name: value for name, value in (content or {}).items() if name not in ("defaults", "hydra")}
    yield from leaves(own, "" if text.startswith(GLOBAL) else group.replace("/", "."))


def leaves(content: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys of nested mappings, and their values; an empty mapping is a value."""
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, content


def _depends(value: Any) -> bool:
    """Whether a value is given by another key, or has to be given."""
    return value == "???" or (isinstance(value, str) and "${" in value)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value

"""The configuration that a run folder records, read as what a stranger may have written: data, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.errors import UserError, one_line

CONFIGURATION = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
LARGEST = 2**20  # bytes; those of runs have some thousand
DEEPEST = 32
# ${key} stands for another value of the same configuration; ${name:...} calls a function, such as oc.env.
_FUNCTION = re.compile(r"\$\{[^{}]*:")


def read_recorded(folder: Path) -> DictConfig:
    """The recorded configuration of a run.

    Run folders are passed on. So nothing in one is looked up outside of it (environment variables, above all), no tag
    makes an object, and no reference makes a small file large.

    Raises:
        UserError: it is missing, no configuration, or more than data.
    """
    path = folder / CONFIGURATION
    _check_yaml(path)
    try:
        config = OmegaConf.load(path)
    except Exception as error:  # of PyYAML and OmegaConf alike
        raise UserError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(config, DictConfig) or not config:
        raise UserError(f"{path} is no configuration of a run: it must be a mapping")
    for key, value in _texts(OmegaConf.to_container(config), ""):
        found = _FUNCTION.search(value)
        if found:
            raise UserError(
                f"{path}: {key} looks up {found.group()}...}} where it is read, and a run folder may only hold what "
                "was found there; put the value in its place"
            )
    return config


def resolve_lookups(config: DictConfig) -> Any:
    """The configuration of a run as it is recorded: with the values of what it looks up outside of itself.

    `${oc.env:HOME}` would be another value for another reader; `${model.device}`, a value of its own, stays.
    """
    return OmegaConf.create(_found(OmegaConf.to_container(config), OmegaConf.to_container(config, resolve=True)))


def _found(written: Any, meant: Any) -> Any:
    if isinstance(written, dict):
        return {name: _found(inner, meant[name]) for name, inner in written.items()}
    if isinstance(written, list):
        return [_found(*pair) for pair in zip(written, meant, strict=True)]
    return meant if isinstance(written, str) and _FUNCTION.search(written) else written


def read_overrides(folder: Path) -> list[str]:
    """What was typed for a run, word by word; nothing of it is looked up.

    Raises:
        UserError: the file is missing, or no list of words.
    """
    import yaml

    path = folder / OVERRIDES
    _check_yaml(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except Exception as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}") from error
    if not isinstance(found, list):
        raise UserError(f"{path} is no list of overrides")
    return [str(item) for item in found]


def _check_yaml(path: Path) -> None:
    """Refuses what is too large or deep, and references: a few of them in each other fill any memory."""
    import yaml

    try:
        size = path.stat().st_size
        if not path.is_file():  # a pipe or device may never end
            raise UserError(f"{path} is no file")
        text = path.read_text(encoding="utf-8") if size <= LARGEST else ""
    except OSError as error:
        raise UserError(f"cannot read the configuration of the run: {path} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not YAML: it is no text in UTF-8") from error
    if size > LARGEST:
        raise UserError(f"{path} has {size} bytes, and the configuration of a run has at most {LARGEST}")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(f"{path} refers to itself (*{event.anchor}), which no run records")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UserError(f"{path} is no configuration of a run: more than {DEEPEST} levels deep")
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}") from error


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text in a configuration, with its dotted key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(str(name), key or "a key")
            yield from _texts(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str):
        yield key, value

"""Which keys the folders of configurations know, and which of them a command line may overrule.

Hydra composes groups first and then what presets say of single keys, so that a preset or an analysis which sets a key
of a group would silently overrule a choice that was typed for it. `check_typed` refuses that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.cli.conf import conf_folders
from diffprobe.errors import UserError
from diffprobe.parts import check_recorded
from diffprobe.ranges import expanded, shown
from diffprobe.runs.settings import leaves

SCRIPTS = ("train", "analyze")  # their primary configurations, the wider last
GLOBAL = "# @package _global_"
_NO_SETTINGS = {"defaults", "hydra", "_target_", "_partial_"}
_FOLDER_FLAGS = ("-cp", "--config-path")
_PRESETS = ("experiment", "debug")  # groups whose choices set keys of others
_FREE = ("layers.groups", "prototypes.groups", "analysis.classes")  # mappings whose keys are the user's


def typed_arguments(arguments: list[str]) -> list[str]:
    """A command line as Hydra takes it.

    Flags come before overrides. ~ at the beginning of a path is replaced, which a shell does for few of them. A setting
    that no choice in the folders of configurations has (`trainer.gradient_clip_val=1`) gets ++, since the class that
    takes it, or not, is known when all is composed. A folder of -cp is that of the working directory.

    Raises:
        UserError: ~user of a user who is not there.
    """
    flags = [item for item in arguments if item in ("-m", "--multirun")]
    overrides = []
    for item, before in zip(arguments, ["", *arguments], strict=False):
        if before in _FOLDER_FLAGS and "://" not in item:
            overrides.append(os.path.abspath(os.path.expanduser(item)))
        elif item not in flags:
            path = r"(?<=[=\[,'\"])~[\w.-]*(?=/|$|[,\]'\"])"
            item = re.sub(path, lambda match: expanded(match[0], "the command line"), item)
            overrides.append(f"++{item}" if _is_argument_of_a_class(item) else item)
    return [*flags, *overrides]


def _is_argument_of_a_class(override: str) -> bool:
    """Whether an override sets a key in a group that no choice of any group sets."""
    key, equals, _ = override.partition("=")
    group = key.partition(".")[0]
    if not equals or "." not in key or not group.isidentifier() or group == "hydra":
        return False
    if not any((folder / group).is_dir() for folder in conf_folders()):
        return False
    return not any(key in file.keys for file in read_conf())


def check_typed(config: DictConfig, hydra: Any) -> None:
    """Checks the composed configuration against the overrides that were typed.

    Raises:
        UserError: a run folder without a name; several choices of a group; a choice that something overrules; a mapping
            typed empty, or the learning rate of what is not trained, without effect; a class that is not this package's
            in a configuration that lies in a run folder (`-cp RUN/.hydra`), which may be a stranger's.
    """
    sources = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    if any(path.resolve().name == ".hydra" for path in sources):
        check_recorded(config)
    overrides: Any = OmegaConf.to_container(hydra.overrides, resolve=False)
    typed = [item.lstrip("+~").partition("=") for item in overrides["task"]]
    empty = [item for item in overrides["hydra"] if re.fullmatch(r"hydra\.(run|sweep)\.dir=(''|\"\")?", item)]
    if empty:
        raise UserError(f"{empty[0]} names no folder; give {empty[0].partition('=')[0]}=FOLDER, or leave it out")
    choices = hydra.runtime.choices
    for group in choices:
        chosen = [value for key, _, value in typed if key == group]
        if len(set(chosen)) > 1:
            raise UserError(f"{group} is given twice, {chosen[0]} and {chosen[-1]}; leave one of them out")
    keys = [key for key, _, _ in typed if key not in choices]
    # What debug=... sets counts as typed too: it makes every size small, whatever else is chosen
    debug = [(group, choice) for group, choice in choices.items() if group.split("/")[0] == "debug" and choice]
    keys += [key for group, choice in debug for key, _ in _set_by(group, choice, sources)]
    for key, _, value in typed:
        _check_rate(key, config)
        if value[:1] in ("[", "{") and any((folder / key).is_dir() for folder in sources):
            raise UserError(f"{key}={value}: a group has one choice; write {key}=CHOICE")
        if key in choices and "@" not in key:
            _check_choice(key, value.strip("'\""), config, sources, keys)
        elif value.replace(" ", "") == "{}" and OmegaConf.select(config, key):
            names = ", ".join(map(str, OmegaConf.select(config, key)))
            raise UserError(
                f"{key}={{}} changes nothing, since what is typed is added to what is there ({names}); "
                f"leave one out with ~{key}.NAME"
            )


def _check_rate(key: str, config: DictConfig) -> None:
    """Raises UserError for a learning rate that nothing is trained with: a search over it would compare equals."""
    section, _, name = key.rpartition(".")
    if section != "probe.learning_rates":
        return
    solver, names = OmegaConf.select(config, "probe.solver"), _property_names(config)
    if solver != "adam":
        raise UserError(f"{key} has no effect: probe.solver={shown(solver)} knows no learning rate (adam does)")
    if name not in names:
        raise UserError(f"{key} has no effect: property.names={shown(names)} has no {name}")


def _property_names(config: DictConfig) -> list[str]:
    own = OmegaConf.select(config, "property.own") or ()
    names = OmegaConf.select(config, "property.names") or ()
    return [*names, *(item.get("name") for item in own), *filter(None, [OmegaConf.select(config, "property.name")])]


def _check_choice(group: str, choice: str, config: DictConfig, folders: Sequence[Path], typed: Sequence[str]) -> None:
    """Raises UserError where the configuration has another value than a choice says, and that was not typed."""
    for key, value in _set_by(group, choice, folders) if group != "experiment" else ():
        if any(f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.") for other in typed):
            continue
        composed = OmegaConf.select(config, key, throw_on_missing=False)
        if OmegaConf.is_config(composed):
            composed = OmegaConf.to_container(composed, resolve=False)
        left_open = value == "???" or (isinstance(value, str) and "${" in value)
        if composed != value and not left_open:
            raise UserError(
                f"{group}={choice} says {key}={shown(value)}, and a preset or another choice makes it "
                f"{shown(composed)}; type {key}=VALUE for the one that is meant, or leave the other out"
            )


def _set_by(group: str, choice: str, folders: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """The keys that the file of a choice sets, and their values; nothing where it is not a file."""
    path = next((path for folder in folders if (path := folder / group / f"{choice}.yaml").is_file()), None)
    if path is not None:
        content: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        own = {name: value for name, value in content.items() if name not in ("defaults", "hydra")}
        yield from leaves(own, _package(path, group)) if own else ()


def _package(path: Path, group: str) -> str:
    """Where the content of a choice's file is put."""
    return "" if path.read_text(encoding="utf-8").startswith(GLOBAL) else group.replace("/", ".")


@dataclass(frozen=True)
class ConfFile:
    """A file of a folder of configurations: a choice of a group ('' for a primary configuration).

    Attributes:
        keys: those that it sets, and the sections that they lie in.
        groups: those whose choices its defaults list names.
    """

    group: str
    choice: str
    keys: frozenset[str]
    groups: frozenset[str]


def read_conf() -> list[ConfFile]:
    """Every file of the folders of configurations but those of Hydra's own groups, the first of its name."""
    return _read_folders(conf_folders())


@cache
def _read_folders(folders: tuple[Path, ...]) -> list[ConfFile]:
    paths = {path.relative_to(folder): path for folder in reversed(folders) for path in folder.rglob("*.yaml")}
    paths = {place: paths[place] for place in sorted(paths) if place.parts[0] != "hydra"}
    contents = {place: _content(path) for place, path in paths.items()}
    named = {place: frozenset(_groups(contents[place], str(place.parent))) for place in paths}
    every = {"experiment"}.union(*named.values())
    files = []
    for place, path in paths.items():
        inside = place.with_suffix("")
        group = next((str(parent) for parent in inside.parents if str(parent) in every), "")
        settings = leaves(contents[place], _package(path, group)) if contents[place] else ()
        parts = [names for key, _ in settings if not _NO_SETTINGS & {*(names := key.split("."))}]
        keys = frozenset(".".join(names[: end + 1]) for names in parts for end in range(len(names)))
        choice = str(inside.relative_to(group)) if group else str(inside)
        files.append(ConfFile(group, choice, keys, named[place]))
    return files


def _content(path: Path) -> dict[str, Any]:
    """What a file sets; nothing of one that is no configuration: Hydra says so if it is chosen."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _groups(content: dict[str, Any], within: str) -> Iterator[str]:
    """The groups that a defaults list names, those of Hydra left out."""
    for name in (name for item in content.get("defaults") or [] if isinstance(item, dict) for name in item):
        group = str(name).removeprefix("override ").removeprefix("optional ").strip()
        if not group.removeprefix("/").startswith("hydra"):
            yield group.removeprefix("/") if group.startswith("/") or within == "." else f"{within}/{group}"


def explain_key(key: str, script: str, *, deleted: bool = False) -> str:
    """Why a run of a script has no such key: the choice or the script that it belongs to, or the nearest that there is.

    deleted: whether the key was to be left out (~KEY).
    """
    if key.startswith("hydra."):
        return f"unknown key {key!r} of Hydra; --cfg hydra lists those that there are"
    files = read_conf()
    known = _known(script, files)
    if deleted and key in known:
        return f"{key} is not set, so there is nothing to leave out"
    elsewhere = [other for other in SCRIPTS if other != script and key in _known(other, files)]
    if key not in known and _top(key) not in {_top(item) for item in known} and elsewhere:
        return f"{key} is a key of {elsewhere[0]}.py, which {script}.py does not have"
    groups = {group.split("/")[0] for group in _groups_of(script, files)} - {*_PRESETS}
    owners = [file for file in files if key in file.keys and file.group and file.group.split("/")[0] in groups]
    if owners:
        return f"{key} belongs to {_choices(owners, files)}; give that choice too, or leave {key} out"
    presets = sorted(file.choice for file in files if file.group == "experiment" and key in file.keys)
    if presets:
        return f"{key} is set by presets only (experiment={presets[0]}); without one write +{key}=VALUE"
    return _nearest(key, known - {key})


def _top(key: str) -> str:
    return key.split("/")[0].split(".")[0]


def _nearest(key: str, known: set[str]) -> str:
    """The known key that was meant, in the same section if there is one like it; else what that section holds."""
    section, _, name = key.rpartition(".")
    siblings = sorted(item.rpartition(".")[2] for item in known if section and item.rpartition(".")[0] == section)
    if section in _FREE:
        return f"{section} has no {name!r}; it is given whole, such as {section}={{{name}: VALUE}}"
    near = get_close_matches(name, siblings, n=1)
    if near:
        return f"unknown key {key!r}; the nearest valid key is '{section}.{near[0]}'"
    if siblings:
        return f"unknown key {key!r}; {section} has {', '.join(siblings)}"
    if section in known:
        return f"unknown key {key!r}; {section} is given whole, {section}=VALUE"
    near = get_close_matches(key, sorted(known), n=1)
    hint = f"the nearest valid key is {near[0]!r}" if near else "--help lists the valid keys"
    return f"unknown key {key!r}; {hint}"


def _choices(owners: list[ConfFile], files: list[ConfFile]) -> str:
    """'objects=coco, davis or voc', after the choice of the group that holds their group."""
    group = owners[0].group
    names = sorted({file.choice for file in owners if file.group == group})[:6]
    choices = f"{group}={', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else f"{group}={names[0]}"
    outer = [file for file in files if "/" in group and group in file.groups and file.group]
    return f"{outer[0].group}={outer[0].choice} {choices}" if outer else choices


def _groups_of(script: str, files: list[ConfFile]) -> set[str]:
    """The groups that a script has, those within others too."""
    own = {group for file in files if not file.group and file.choice == script for group in file.groups}
    return own | {group for file in files if file.group in own - {*_PRESETS} for group in file.groups}


def _known(script: str, files: list[ConfFile]) -> set[str]:
    """Every group, section and key that a run of a script may have, by whatever choice."""
    groups = _groups_of(script, files)
    primary = [file for file in files if not file.group and file.choice == script]
    choices = [file for file in files if file.group in groups]
    outer = {file.group for file in choices}
    top = {_top(item) for item in (*outer, *(key for file in primary for key in file.keys))}
    return {key for file in (*primary, *choices) for key in file.keys if key.split(".")[0] in top} | outer

"""Which keys the configuration folder knows, and which choice each belongs to.

What a person typed is what a run does: a choice that something else overrules is refused, with the key to type.

Hydra composes groups first and then what presets say of single keys, so that a preset (or an analysis) which sets a key
of a group would overrule the choice that was typed for it, without a word. The presets of this package say such things
by choices; this holds those of others to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
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


NO_SETTINGS = ("defaults", "hydra", "_target_", "_partial_")
PRESETS = ("experiment", "debug")  # groups whose choices set keys of others
FREE = ("layers.groups", "prototypes.groups", "analysis.classes")  # mappings whose keys are the user's
SCRIPTS = ("train", "analyze")  # their primary configurations, the wider last


@dataclass(frozen=True)
class ConfFile:
    """One file of the folder: a choice of a group ('' for a primary configuration), and the keys it sets."""

    group: str
    choice: str
    keys: frozenset[str]
    groups: frozenset[str]  # whose choices it names


@cache
def read_conf(conf: Path) -> list[ConfFile]:
    """Every file of a configuration folder but those of Hydra's own groups."""
    import yaml

    files = [path for path in sorted(conf.rglob("*.yaml")) if not path.is_relative_to(conf / "hydra")]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    contents = {path: yaml.safe_load(text) or {} for path, text in texts.items()}
    named = {path: frozenset(_groups(contents[path], str(path.parent.relative_to(conf)))) for path in files}
    every = {"experiment"}.union(*named.values())
    found = []
    for path in files:
        inside = path.relative_to(conf).with_suffix("")
        group = next((str(parent) for parent in inside.parents if str(parent) in every), "")
        package = "" if not group or texts[path].startswith("# @package _global_") else group.replace("/", ".")
        choice = str(inside.relative_to(group)) if group else str(inside)
        found.append(ConfFile(group, choice, frozenset(_keys(contents[path], package)), named[path]))
    return found


def settable_keys(conf: Path) -> set[str]:
    """Every key that a choice in a configuration folder sets, and the sections they are in."""
    return {key for file in read_conf(conf) for key in _with_sections(file.keys)}


def explain_key(key: str, conf: Path, script: str, *, deleted: bool = False) -> str:
    """Why a run of a script has no such key: the choice or the script that it belongs to, or the nearest that there is.

    deleted: whether the key was to be left out (~KEY).
    """
    if key.startswith("hydra."):
        return f"unknown key {key!r} of Hydra; --cfg hydra lists those that there are"
    files = read_conf(conf)
    here = _groups_of(script, files)
    owners = [file for file in files if file.group not in ("", *PRESETS) and key in _with_sections(file.keys)]
    elsewhere = [other for other in SCRIPTS if other != script and key in _known(other, files)]
    top = key.split("/")[0].split(".")[0]
    known = _known(script, files)
    if deleted and key in known:
        return f"{key} is not set, so there is nothing to leave out"
    if key not in known and top not in {item.split(".")[0].split("/")[0] for item in known} and elsewhere:
        return f"{key} is a key of {elsewhere[0]}.py, which {script}.py does not have"
    owners = [file for file in owners if file.group.split("/")[0] in here]
    if owners:
        return f"{key} belongs to {_told(owners, files)}; give that choice too, or leave {key} out"
    presets = sorted(file.choice for file in files if file.group == "experiment" and key in file.keys)
    if presets:
        return f"{key} is set by presets only (experiment={presets[0]}); without one write +{key}=VALUE"
    return _nearest(key, known - {key})


def _nearest(key: str, known: set[str]) -> str:
    """The known key that was meant, in the same section if there is one like it; else what that section holds."""
    section, _, name = key.rpartition(".")
    siblings = sorted(item.rpartition(".")[2] for item in known if section and item.rpartition(".")[0] == section)
    if section in FREE:
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


def _told(owners: list[ConfFile], files: list[ConfFile]) -> str:
    """'objects=coco, davis or voc', after the choice of the group that holds their group."""
    group = owners[0].group
    names = sorted({file.choice for file in owners if file.group == group})[:6]
    told = f"{group}={', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else f"{group}={names[0]}"
    outer = [file for file in files if "/" in group and group in file.groups and file.group]
    return f"{outer[0].group}={outer[0].choice} {told}" if outer else told


def _groups_of(script: str, files: list[ConfFile]) -> set[str]:
    """The groups that a script has, those within others not."""
    (primary,) = [file for file in files if not file.group and file.choice == script] or [None]
    own = set(primary.groups) if primary else set()
    return own | {group for file in files if file.group in own - {*PRESETS} for group in file.groups}


def _known(script: str, files: list[ConfFile]) -> set[str]:
    """Every group, section and key that a run of a script may have, by whatever choice."""
    groups = _groups_of(script, files)
    theirs = [file for file in files if file.group in groups or (not file.group and file.choice == script)]
    outer = {file.group for file in theirs if file.group}
    keys = {
        key
        for file in theirs
        for key in _with_sections(file.keys)
        if key.split(".")[0] in _top_level_keys(outer, files, script)
    }
    return keys | outer


def _top_level_keys(groups: set[str], files: list[ConfFile], script: str) -> set[str]:
    """The first parts of keys that a script knows: its groups, and what its own file sets."""
    primary = {key.split(".")[0] for file in files if not file.group and file.choice == script for key in file.keys}
    return {group.split("/")[0] for group in groups} | primary


def _with_sections(keys: frozenset[str]) -> set[str]:
    return {".".join(key.split(".")[:end]) for key in keys for end in range(1, key.count(".") + 2)}


def _keys(content: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, value in content.items():
        if name in NO_SETTINGS:
            continue
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, dict) and value:
            yield from _keys(value, key)
        else:
            yield key


def _groups(content: dict[str, Any], within: str) -> Iterator[str]:
    """The groups that a defaults list names, those of Hydra left out."""
    for item in content.get("defaults") or []:
        for name in item if isinstance(item, dict) else ():
            group = str(name).removeprefix("override ").removeprefix("optional ").strip()
            absolute = group.startswith("/") or within == "."
            group = group.removeprefix("/")
            if not group.startswith("hydra"):
                yield group if absolute else f"{within}/{group}"

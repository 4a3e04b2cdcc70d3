"""What Hydra's complaints about a command line mean, in one line that says what to type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from diffprobe.cli.keys import explain_key, read_conf

# Choices of Hydra's own groups that come with an extra of this package.
_EXTRAS = {
    "hydra/launcher": dict.fromkeys(("joblib", "submitit_local", "submitit_slurm"), "sweep"),
    "hydra/sweeper": {"optuna": "hpo"},
}
_NO_CHOICE = "Config group override must be a string or a list"


def explain_composition(error: BaseException, conf: Path, script: str, typed: Sequence[str]) -> str | None:
    """What to tell a user of an error of Hydra's while it reads a command line and composes; None of another error.

    Args:
        conf: the folder of configurations.
        script: 'train' or 'analyze'.
        typed: the arguments of the command.
    """
    from hydra.errors import HydraException, OverrideParseException

    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and _NO_CHOICE in text:
        return _no_choice(typed, conf)
    if not isinstance(error, HydraException):
        return None
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, text)
    told = (_unknown_choice(text), _wrong_preset(text, script), _known_twice(text), _several(text))
    return next((line for line in told if line), None) or _unknown_key(error, text, conf, script) or _plain(error, text)


def _no_choice(typed: Sequence[str], conf: Path) -> str:
    """A group that is set to null or to a number, which Hydra does not name."""
    files = read_conf(conf)
    groups = {file.group for file in files if file.group} | {group for file in files for group in file.groups}
    for item in typed:
        group, found, value = item.lstrip("+").partition("=")
        if found and not group:
            return f"{item}: there is no key before =; give KEY=VALUE"
        if group in groups and re.fullmatch(r"null|true|false|[-+\d.e]*|nan|inf", value.strip(), re.IGNORECASE):
            choices = [file.choice for file in files if file.group == group]
            return f"{item}: is no choice of the group {group}, which are {', '.join(choices)}; or leave it out"
    return "a group of the configuration is set to what is no name of a choice; --help lists groups and choices"


def _unreadable(override: str, text: str) -> str:
    key, _, value = override.partition("=")
    if not value and "=" not in override:
        return f"{override!r} is no KEY=VALUE; to leave out a key write ~KEY"
    why = text.split(" See https")[0].split("Exception: ")[0]
    why = "" if why.startswith("Lexer") else f" ({why})"
    return (
        f"cannot read {override}{why}; a value with characters other than letters, digits and -_./:@%+ stands in "
        f"quotes within quotes, such as \"{key}='VALUE'\" (names in a mapping stand without)"
    )


def _unknown_choice(text: str) -> str | None:
    """`model=pockt`."""
    found = re.search(r"Could not find '([^']*)' Available options in '([^']*)': (.*?)(?: Config search|$)", text)
    if not found:
        return None
    wanted, group, options = found.groups()
    choice = wanted.removeprefix(f"{group}/")
    if choice in _EXTRAS.get(group, {}):
        return f"{group}={choice} needs the extra {_EXTRAS[group][choice]!r}: see docs/sweeps.md for its installation"
    names = re.findall(r"[\w./+-]+", options)
    near = get_close_matches(choice, names, n=1, cutoff=0.3)
    hint = f"did you mean {group}={near[0]}? " if near else ""
    return f"{group} has no choice {choice!r}; {hint}Choices: {', '.join(names)}"


def _wrong_preset(text: str, script: str) -> str | None:
    """`python train.py experiment=diff_props/table1`, which needs groups of analyze.py."""
    found = re.search(r"In '([^'/]+)/([^']+)': Could not override '([^']+)'. No match in the defaults list", text)
    if not found:
        return None
    group, choice, lacking = found.groups()
    other = "analyze.py" if script == "train" else "train.py"
    return f"{group}={choice} needs the group {lacking}, which {script}.py does not have: it is for {other}"


def _known_twice(text: str) -> str | None:
    """`+model.path=x` and `+model=sd14`, which are there without being added."""
    there = re.search(r"An item is already at '([^']+)'", text)
    if there:
        return f"{there[1]} is there already; write {there[1]}=VALUE, without +"
    twice = re.search(r"Multiple values for ([^.]+)\. To override", text)
    return f"the group {twice[1]} is chosen already; write {twice[1]}=CHOICE once, without +" if twice else None


def _several(text: str) -> str | None:
    """`seed=1,2` without -m."""
    found = re.search(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\.", text)
    if not found:
        return None
    key, values = found.groups()
    return f"{key}={values} is several values: a list is written {key}=[{values}], and a sweep over them needs -m"


def _unknown_key(error: BaseException, text: str, conf: Path, script: str) -> str | None:
    """`trainr.devices=2`, `features.folder=x` without features=disk, `~foo`."""
    value = re.search(r"The value of '([^']+)' is (.*) and not (.*)\.", text)
    if value:
        return f"~{value[1]}={value[3]}: the value of {value[1]} is {value[2]}; write ~{value[1]}"
    found = re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text)
    if not found:
        return None
    key = found[1].lstrip("+~").split("=")[0]
    if "@" in key:
        return f"{key}: a group has its own place; write {key.split('@')[0]}=CHOICE"
    inner = getattr(error.__cause__, "full_key", None)  # of a mapping that holds it: probe.learning_rates.dept
    if inner and str(inner).startswith(f"{key}."):
        key = str(inner)
    return explain_key(key, conf, script, deleted="delete" in text)


def _plain(error: BaseException, text: str) -> str:
    cause = error.__cause__
    return f"{text}: {' '.join(str(cause).split(chr(10))[0].split())}" if cause and "Error merging" in text else text

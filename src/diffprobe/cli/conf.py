"""Where configurations are: the user's own in `conf/` of the working directory, before those of this package."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import yaml
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

_PACKAGE = Path(__file__).resolve().parents[1]


def package_conf() -> Path:
    """The folder of configurations that belongs to this package: inside it, or at the top of its checkout."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parents[1] / "conf"


def conf_folders() -> tuple[Path, ...]:
    """The folders of configurations, the one that is searched first at first."""
    own = _own_folder()
    return (package_conf(),) if own is None or _lacking(own) else (own, package_conf())


def _own_folder() -> Path | None:
    own = Path.cwd() / "conf"
    return own if own.is_dir() and own.resolve() != package_conf() else None


class OwnConf(SearchPathPlugin):
    """Has Hydra search the user's own folder before this package's; not where another one is named, as by `-cp`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if all(element.path != str(package_conf()) for element in search_path.get_path()):
            return
        own = _own_folder()
        if own is not None and _lacking(own):
            _tell_of_another_program(own)
        for own in conf_folders()[:-1]:
            search_path.prepend("own", f"file://{own}", SearchPathQuery(provider="main"))


@cache
def _lacking(folder: Path) -> str:
    """What a main configuration of another program, which would take the place of this package's, lacks; '' if none."""
    for ours in sorted(package_conf().glob("*.yaml")):
        own = folder / ours.name
        missing = _groups(ours) - _groups(own) if own.is_file() else set()
        if missing:
            return f"{own} lacks the groups {', '.join(sorted(missing))}"
    return ""


@cache
def _tell_of_another_program(folder: Path) -> None:
    """Says once in a process that a folder is not searched."""
    print(
        f"{folder} is not searched: it is of another program, since {_lacking(folder)}. For choices of your own there, "
        "rename that file",
        file=sys.stderr,
    )


def _groups(path: Path) -> set[str]:
    """The groups that a configuration's list of defaults chooses from."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return set()
    defaults = content.get("defaults") if isinstance(content, dict) else None
    names = [str(name) for item in defaults or () if isinstance(item, dict) for name in item]
    return {name for name in names if not name.startswith(("override ", "optional "))}


def search_own_conf() -> None:
    """Lets Hydra find the user's own configurations, from here on in this process.

    Not by a package `hydra_plugins`, which would change the search of every other program of the environment too.
    """
    Plugins.instance().register(OwnConf)

"""Where configurations are: the user's own in `conf/` of the working directory, before those of this package."""

from __future__ import annotations

from pathlib import Path

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
    own, ours = Path.cwd() / "conf", package_conf()
    return (own, ours) if own.is_dir() and own.resolve() != ours else (ours,)


class OwnConf(SearchPathPlugin):
    """Has Hydra search the user's own folder before this package's; not where another one is named, as by `-cp`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if all(element.path != str(package_conf()) for element in search_path.get_path()):
            return
        for own in conf_folders()[:-1]:
            search_path.prepend("own", f"file://{own}", SearchPathQuery(provider="main"))


def search_own_conf() -> None:
    """Lets Hydra find the user's own configurations, from here on in this process.

    Not by a package `hydra_plugins`, which would change the search of every other program of the environment too.
    """
    Plugins.instance().register(OwnConf)

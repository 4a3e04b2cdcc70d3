"""Runs as jobs of a sweep: which folder holds a finished one, of what configuration, and what a search maximises."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from diffprobe.errors import UserError
from diffprobe.files import remove_leftovers, replacing
from diffprobe.parts import check_recorded, targets
from diffprobe.runs.recorded import CONFIGURATION, read_recorded, resolve_lookups
from diffprobe.runs.settings import checked

if TYPE_CHECKING:
    import pandas as pd

FINISHED = "environment.json"  # the last file of a run
LOCK = ".lock"  # in .hydra/, held while a process makes the run
# What a run leaves but its configuration, logs and tracked runs.
_RESULTS = (
    "*.csv",
    "scores.parquet",
    "report.txt",
    "report.html",
    "tables/*",
    "figures/*",
    "probes/*",
    "prototypes/*",
    "training/*/*",
)
_LOGS = (".log", ".out", ".err")
_ANOTHER = "another folder (hydra.run.dir=FOLDER, in a sweep hydra.sweep.dir=FOLDER)"
# What says where and how fast a run is made, and changes no number of it.
RUN_ONLY_KEYS = (
    "job",
    "dry_run",
    "features.folder",
    "model.device",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
)


def read_settings(folder: Path, check: Callable[[DictConfig], Any] = checked, also: Collection[str] = ()) -> Any:
    """The settings that a run folder was made with.

    Args:
        also: classes that they may name beside those of this package, see `check_recorded`.

    Raises:
        UserError: they are missing, name another class, or are not (any more) what `check` takes.
    """
    config = read_recorded(folder)
    check_recorded(config, also)
    try:
        return check(config)
    except UserError as error:
        raise UserError(f"{folder / CONFIGURATION} is no configuration of this version: {error}") from error


def is_finished(folder: Path, settings: Any, check: Callable[[DictConfig], Any] = checked) -> bool:
    """Whether the folder holds the finished run of these settings, which need not be made again.

    Raises:
        UserError: it holds a finished run of other settings, which would be overwritten.
    """
    if not (folder / FINISHED).exists():
        return False
    _check_same(folder, settings, check, "a finished")
    return True


def check_unfinished(folder: Path, settings: Any, check: Callable[[DictConfig], Any] = checked) -> None:
    """Makes sure that whatever is in the folder was left by an unfinished run of these settings, which may go on.

    Raises:
        UserError: an unfinished run of other settings, whose files would be taken for those of this one; or files that
            no run has left.
    """
    if (folder / CONFIGURATION).exists():
        _check_same(folder, settings, check, "an unfinished")
        return
    foreign = sorted(path.name for path in folder.iterdir() if not _is_log(path)) if folder.is_dir() else []
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{folder} is not empty ({foreign[0]}{more}) and holds no run that could go on; nothing was written. "
            f"Give {_ANOTHER}, or move those files away"
        )


def _check_same(folder: Path, settings: Any, check: Callable[[DictConfig], Any], what: str) -> None:
    """Raises UserError unless the folder was made with these settings, but for what is immaterial."""
    own = {target for _, target in targets(OmegaConf.to_container(settings))}
    there, here = flattened(read_settings(folder, check, own)), flattened(settings)
    differing = [key for key in {**there, **here} if key not in RUN_ONLY_KEYS and there.get(key) != here.get(key)]
    if differing:
        shown = "; ".join(f"{key} is {there.get(key)} there, {here.get(key)} here" for key in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"{folder} holds {what} run of another configuration ({shown}{more}); nothing was overwritten. Give "
            f"{_ANOTHER}, or move that one away"
        )


def _is_log(path: Path) -> bool:
    """Whether a file may lie in a run folder before the run: what a shell or SLURM writes there, and hidden files."""
    return path.name.startswith(".") or path.name == "wandb" or path.suffix in _LOGS or path.name in ("log", "log.txt")


@contextmanager
def run_lock(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Inside, no other process makes a run in the folder. The system gives it back when a process ends however it may.

    Temporary files of whoever was there before are removed, since nobody writes them any more.

    Raises:
        UserError: another process is making a run there.
    """
    from filelock import FileLock, Timeout

    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / LOCK)
    locked = True
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"another process is making a run in {folder}; wait for it, or give {_ANOTHER}") from None
    except (OSError, NotImplementedError) as error:
        locked = False
        log(f"cannot lock {folder} ({error}): see to it that no other process makes a run there")
    try:
        for part in (folder, *(path for path in folder.iterdir() if path.is_dir() and path.name != "wandb")):
            remove_leftovers(part, all_machines=locked)
        yield
    finally:
        lock.release()


def clear(folder: Path) -> None:
    """Removes the results that an unfinished run of the same settings left, all of which are made again.

    What it read may have changed since, and with it which files there are. Logs and tracked runs stay.
    """
    if (folder / CONFIGURATION).exists():
        remove_results(folder)


def remove_results(folder: Path) -> None:
    """Removes the tables, figures, probes and reports that a run or a gathered sweep left in a folder."""
    for pattern in _RESULTS:
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink(missing_ok=True)


def record_configuration(folder: Path, config: DictConfig, hydra: Any) -> None:
    """Writes `.hydra/` from the configuration and Hydra's own, as Hydra would before anything could be checked.

    The configuration is written last, each file in one move: without it there is no run that could go on.
    """
    place = folder / ".hydra"
    place.mkdir(parents=True, exist_ok=True)
    contents = {
        "hydra.yaml": hydra,
        "overrides.yaml": hydra.overrides.task,
        Path(CONFIGURATION).name: resolve_lookups(config),
    }
    for name, content in contents.items():
        with replacing(place / name) as temporary:
            OmegaConf.save(content, temporary)


def flattened(settings: Any) -> dict[str, Any]:
    """Every setting by its dotted key; lists are values."""
    return dict(_leaves(OmegaConf.to_container(settings, resolve=True), ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def objective(summaries: pd.DataFrame) -> float:
    """What a search maximises: the mean headline score on *validation* images over all probes of the network itself.

    Test images have no part in it. NaN if no such score is defined.
    """
    from diffprobe.probes.properties import property_named
    from diffprobe.probes.score_table import select
    from diffprobe.probes.summaries import summary_rows

    scores = [
        row.mean
        for row in summary_rows(select(summaries, control="none", split="validation"))
        if row.metric == property_named(row.property).headline and row.mean is not None
    ]
    return fmean(scores) if scores else math.nan


def objective_of(folder: Path) -> float:
    """The objective of a finished run, from its tables."""
    from diffprobe.probes.summaries import read_summary

    return objective(read_summary(folder / "summary.csv"))

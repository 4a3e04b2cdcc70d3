"""What a sweep left: its jobs, which of them belong together, and their scores as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.errors import UserError
from diffprobe.runs.folder import FINISHED, RUN_ONLY_KEYS, flattened, read_settings
from diffprobe.runs.recorded import read_overrides, read_recorded

if TYPE_CHECKING:
    import pandas as pd

    from diffprobe.runs.settings import ProbingSettings

# Settings, and groups of them in overrides, that say which rows a job has; columns tell these apart.
ROWS = (
    *("layers.select", "steps.select", "property.names", "control.names"),
    *("layers", "steps", "property", "control"),
)
# Those that leave no trace in the rows.
RUN_ONLY_GROUPS = (
    *RUN_ONLY_KEYS,
    *("features.layers", "features.steps", "features.store", "features.images_per_shard"),
    *("features", "report", "logger"),
)


@dataclass(frozen=True)
class Job:
    """A finished job of a sweep: its folder, settings, and what was asked for on the command line."""

    folder: Path
    settings: ProbingSettings
    overrides: list[str]


@dataclass(frozen=True)
class Group:
    """Jobs that differ in rows alone. `name` tells the group from the others; empty if there is but one."""

    name: str
    jobs: list[Job]


def find_jobs(folder: Path) -> tuple[list[Job], list[Path]]:
    """The finished jobs in a folder, in the order of their names, and the folders of unfinished ones.

    Raises:
        UserError: there is no such folder, no finished job in it, or they are jobs of analyze.py.
    """
    if not folder.is_dir():
        raise UserError(f"gather={folder}: there is no such folder; give the folder of a sweep (hydra.sweep.dir)")
    begun = begun_jobs(folder)
    finished = [path for path in begun if (path / FINISHED).exists()]
    if not finished:
        raise UserError(f"gather={folder}: {len(begun)} jobs were begun there, and none is finished")
    if "analysis" in read_recorded(finished[0]):
        raise UserError(
            f"gather={folder} is a sweep of analyze.py, whose jobs cannot be joined; to set them side by side: "
            f"python analyze.py analysis=compare 'analysis.runs=[{folder}]'"
        )
    jobs = [Job(path, read_settings(path), read_overrides(path)) for path in finished]
    return jobs, [path for path in begun if path not in finished]


def begun_jobs(folder: Path) -> list[Path]:
    """The folders of a sweep's jobs, finished or not, in the order of their numbers, then of their names."""
    begun = sorted(path.parent for path in folder.glob("*/.hydra"))
    return sorted(begun, key=lambda path: (not path.name.isdigit(), int(path.name) if path.name.isdigit() else 0))


def grouped(jobs: Sequence[Job]) -> list[Group]:
    """Jobs whose settings differ in rows alone come together; groups are named by the overrides that not all have."""
    probes = {(job.settings.probe.name, str(job.settings.probe)) for job in jobs}
    named = len({name for name, _ in probes}) == len(probes)  # a column tells kinds of probes apart: their name
    by_settings: dict[tuple, list[Job]] = {}
    for job in jobs:
        kept = {key: value for key, value in flattened(job.settings).items() if not _of_rows(key, named)}
        by_settings.setdefault(tuple(sorted((key, str(value)) for key, value in kept.items())), []).append(job)
    if len(by_settings) == 1:
        return [Group("", list(jobs))]
    common = set.intersection(*(set(job.overrides) for job in jobs))
    groups: dict[str, Group] = {}
    for together in by_settings.values():
        telling = [item for item in together[0].overrides if item not in common]
        name = " ".join(item for item in telling if not _of_rows(item.lstrip("+").split("=")[0], named))
        name = name or together[0].folder.name
        if name in groups:
            name = f"{name} ({together[0].folder.name})"
        groups[name] = Group(name, together)
    return list(groups.values())


def _of_rows(key: str, named: bool) -> bool:
    """Whether a setting, or a group of them in an override, says which rows there are, or nothing about them.

    named: whether every kind of probe has its name.
    """
    probe = named and (key == "probe" or key.startswith("probe."))
    return probe or key in (*ROWS, *RUN_ONLY_GROUPS) or key.startswith(("report.", "logger."))


def join_scores(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables, by name, each once. Properties come in the order that one run gives them.

    Raises:
        UserError: two tables give the same image another value under the same keys.
    """
    import numpy as np

    from diffprobe.probes.properties import PROPERTIES
    from diffprobe.probes.score_table import COLUMNS, concatenate, group_rows

    scores = concatenate(list(tables.values()))
    groups = group_rows(scores, [name for name in COLUMNS if name not in ("timestep", "value")])
    values, first = scores["value"].to_numpy(), np.repeat(groups.first, groups.sizes)
    # Sums by another number of threads may differ in the last digits
    agree = np.isclose(values[groups.order], values[first], rtol=1e-5, atol=1e-6, equal_nan=True)
    if not agree.all():
        at = int(agree.argmin())
        rows = [first[at], groups.order[at]]
        names = np.repeat(list(tables), [len(table) for table in tables.values()])[rows]
        one, row = scores.iloc[rows[0]], scores.iloc[rows[1]]
        raise UserError(
            f"{names[0]} and {names[1]} contradict each other: {row.metric} of {row.property} at {row.layer}, step "
            f"{row.step}, control {row.control}, image {row.image!r} is {one.value} in the one and "
            f"{row.value} in the other; gather jobs of one sweep, or run it again in a folder of its own"
        )
    once = scores.iloc[groups.first]
    order = once["property"].map({name: place for place, name in enumerate(PROPERTIES)}).astype(int)
    return once.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)

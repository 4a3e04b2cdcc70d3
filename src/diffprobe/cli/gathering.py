"""Joins the jobs of a sweep: the tables and figures that one run over all of it would have written."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.errors import UserError
from diffprobe.runs.folder import (
    FINISHED,
    RUN_ONLY_KEYS,
    begun_jobs,
    read_overrides,
    read_recorded,
    read_settings,
    remove_results,
)
from diffprobe.runs.settings import ProbingSettings, flattened
from diffprobe.terminal import script_command

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

# Settings, and groups of them, in which the jobs of a group may differ: those that say which rows there are, and those
# that change nothing in the rows.
_FREE = (
    *("layers.select", "steps.select", "property.names", "control.names"),
    *("layers", "steps", "property", "control"),
    *("features.layers", "features.steps", "features.store", "features.images_per_shard"),
    *("features", "report", "logger", *RUN_ONLY_KEYS),
)


@dataclass(frozen=True)
class Job:
    """A finished job of a sweep: its folder, its settings, and the overrides that were typed."""

    folder: Path
    settings: ProbingSettings
    overrides: list[str]


def gather(folder: Path, console: Console) -> None:
    """Joins the finished jobs in `folder` and writes tables, report and figures to `folder`/gathered.

    Jobs that differ in more than layers, steps, properties and controls (in their seed, say) have rows that no column
    tells apart: each group of such jobs gets a folder of its own, and groups.csv holds them side by side.

    Raises:
        UserError: no finished jobs there, or jobs of a group that contradict each other.
    """
    from pandas import DataFrame

    from diffprobe.files import replacing

    jobs, unfinished = find_jobs(folder)
    for job in unfinished:
        console.print(f"not finished, and left out: {job}", soft_wrap=True)
    groups = grouped(jobs)
    gathered = folder / "gathered"
    _remove_earlier(gathered)
    rows = []
    for name, together in groups.items():
        if name:
            console.print(f"{name}: {len(together)} jobs", soft_wrap=True)
        rows += _publish(name, together, gathered / _as_folder(name), console)
    if len(groups) > 1:
        with replacing(gathered / "groups.csv") as temporary:
            DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
        console.print(_groups_table(DataFrame(rows)))
    console.print(f"gathered {len(jobs)} jobs into {gathered}", soft_wrap=True)


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
            f"{shlex.join(script_command('analyze'))} analysis=compare 'analysis.runs=[{folder}]'"
        )
    jobs = [Job(path, read_settings(path), read_overrides(path)) for path in finished]
    return jobs, [path for path in begun if path not in finished]


def grouped(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Jobs whose settings differ in rows alone, together, by the overrides that not all jobs have.

    The name of the only group is empty.
    """
    probes = {(job.settings.probe.name, str(job.settings.probe)) for job in jobs}
    named = len({name for name, _ in probes}) == len(probes)  # a column tells kinds of probes apart: their name

    def may_differ(key: str) -> bool:
        probe = named and (key == "probe" or key.startswith("probe."))
        return probe or key in _FREE or key.startswith(("report.", "logger."))

    by_settings: dict[tuple, list[Job]] = {}
    for job in jobs:
        others = {key: str(value) for key, value in flattened(job.settings).items() if not may_differ(key)}
        by_settings.setdefault(tuple(sorted(others.items())), []).append(job)
    if len(by_settings) == 1:
        return {"": list(jobs)}
    common = set.intersection(*(set(job.overrides) for job in jobs))
    groups: dict[str, list[Job]] = {}
    for together in by_settings.values():
        own = [item for item in together[0].overrides if item not in common]
        name = " ".join(item for item in own if not may_differ(item.lstrip("+").split("=")[0]))
        name = name or together[0].folder.name
        groups[f"{name} ({together[0].folder.name})" if name in groups else name] = together
    return groups


def join_scores(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables, by name, each once. Properties come in the order that one run gives them.

    Raises:
        UserError: two tables give the same image another value under the same keys.
    """
    import numpy as np

    from diffprobe.probes.score_table import COLUMNS, concatenate, group_rows
    from diffprobe.properties import PROPERTY_NAMES

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
    names = [*PROPERTY_NAMES, *once["property"].unique()]  # the user's own come last
    order = once["property"].map({name: names.index(name) for name in names}).astype(int)
    return once.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def _remove_earlier(gathered: Path) -> None:
    """Removes what was gathered before: of groups that are no more, it would stand beside those that are."""
    from diffprobe.probes.score_table import scores_file

    places = [path for path in gathered.glob("*") if path.is_dir()] if gathered.is_dir() else []
    for place in (gathered, *places):
        if scores_file(place) or (place / "groups.csv").exists():
            remove_results(place)
            for part in (*place.glob("*"), place):
                if part.is_dir() and not any(part.iterdir()):
                    part.rmdir()


def _publish(name: str, jobs: Sequence[Job], folder: Path, console: Console) -> list[dict[str, Any]]:
    """Writes what a run would write but pictures of single images, and prints what it would print.

    Returns:
        For each property the test score of its best layer at the last step.
    """
    from diffprobe.analyses.probing.report import report
    from diffprobe.probes.score_table import read_scores
    from diffprobe.probes.summaries import summarise
    from diffprobe.report.choices import choose, curve
    from diffprobe.report.publish import publish

    scores = join_scores({str(job.folder): read_scores(job.folder) for job in jobs})
    summaries, settings = summarise(scores), jobs[0].settings
    reproduce = [("command", shlex.join([*script_command("analyze"), f"gather={jobs[0].folder.parent}"]))]
    reproduce += [(f"job {job.folder.name}", shlex.join(job.overrides)) for job in jobs]
    joined = report(scores, summaries, seed=settings.seed, published=settings.report.get("published", {}))
    publish(joined, folder=folder, console=console, reproduce=reproduce)
    rows = []
    for choice in choose(summaries, scores):
        last = curve(summaries, choice, choice.best)[-1]
        what = {"model": choice.model, "probe": choice.probe, "property": choice.property, "metric": choice.metric}
        values = {key: getattr(last, key) for key in ("layer", "step", "mean", "low", "high", "n")}
        rows.append({"group": name, **what, **values})
    return rows


def _groups_table(rows: pd.DataFrame) -> Any:
    """Groups below each other, and below them the mean, lowest and highest of their scores."""
    from rich.table import Table
    from rich.text import Text

    names = rows["property"] if rows["probe"].nunique() == 1 else rows["property"] + ", " + rows["probe"]
    scores = rows.assign(name=names).pivot(index="group", columns="name", values="mean").astype(float)
    scores = scores.loc[list(rows["group"].unique()), list(names.unique())]
    table = Table(title="Test scores at the best layer and last step of every group", title_justify="left")
    table.add_column("group")
    for name in scores.columns:
        table.add_column(name, justify="right", no_wrap=True)
    for group, cells in scores.iterrows():
        table.add_row(Text(str(group)), *("no score" if cell != cell else f"{cell:.2f}" for cell in cells))
    table.add_section()
    spread = [
        "no score" if low != low else f"{mean:.2f} ({low:.2f}, {high:.2f})"
        for mean, low, high in zip(scores.mean(), scores.min(), scores.max(), strict=True)
    ]
    table.add_row("mean (lowest, highest)", *spread)
    return table


def _as_folder(name: str) -> str:
    """A group's name as the name of a folder; empty for the only group."""
    plain = "".join(letter if letter.isalnum() or letter in "=.,-_+" else "_" for letter in name)
    return plain.replace("..", "__")  # never a folder above

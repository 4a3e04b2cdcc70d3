"""Joins the jobs of a sweep: the tables and figures that one process over all of it would have left."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.runs.folder import remove_results
from diffprobe.runs.sweeps import Group, find_jobs, grouped, join_scores

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from diffprobe.report.choices import LayerChoice


@dataclass(frozen=True)
class GatheredTables:
    """The joined tables of a group."""

    group: Group
    scores: pd.DataFrame
    summaries: pd.DataFrame
    choices: list[LayerChoice]


@dataclass(frozen=True)
class GatheredRun:
    """Where the report of a group goes. Nothing is tracked."""

    folder: Path
    console: Console
    reproduce: list[tuple[str, str]]
    config: Mapping[str, Any] = field(default_factory=dict)
    tracker: None = None


def gather(folder: Path, console: Console) -> None:
    """Joins the finished jobs in `folder` and leaves tables, report and figures in `folder`/gathered.

    Jobs that differ in more than layers, steps, properties and controls, in their seed say, have rows that are told
    apart by no column: each group of such jobs gets a folder of its own, and groups.csv holds them side by side.

    Raises:
        UserError: no finished jobs there, or jobs of a group that contradict each other.
    """
    jobs, unfinished = find_jobs(folder)
    for job in unfinished:
        console.print(f"not finished, and left out: {job}", soft_wrap=True)
    groups = grouped(jobs)
    _remove_earlier(folder / "gathered")
    everything = []
    for group in groups:
        target = folder / "gathered" / _as_folder(group.name)
        if group.name:
            console.print(f"{group.name}: {len(group.jobs)} jobs", soft_wrap=True)
        everything.append(_publish(_joined(group), target, console))
    if len(groups) > 1:
        rows = [_row(found, choice) for found in everything for choice in found.choices]
        _write_groups(folder / "gathered" / "groups.csv", rows)
        console.print(_groups_table(rows))
    console.print(f"gathered {len(jobs)} jobs into {folder / 'gathered'}", soft_wrap=True)


def _remove_earlier(gathered: Path) -> None:
    """What was gathered before, of other jobs perhaps: groups that are no more would stand beside those that are."""
    from diffprobe.probes.score_table import scores_file

    places = [path for path in gathered.glob("*") if path.is_dir()] if gathered.is_dir() else []
    for place in (gathered, *places):
        if scores_file(place) or (place / "groups.csv").exists():
            remove_results(place)
            for part in (*place.glob("*"), place):
                if part.is_dir() and not any(part.iterdir()):
                    part.rmdir()


def _joined(group: Group) -> GatheredTables:
    from diffprobe.probes.score_table import read_scores
    from diffprobe.probes.summaries import summarise
    from diffprobe.report.choices import choose

    scores = join_scores({str(job.folder): read_scores(job.folder) for job in group.jobs})
    summaries = summarise(scores)
    return GatheredTables(group, scores, summaries, choose(summaries, scores))


def _publish(found: GatheredTables, folder: Path, console: Console) -> GatheredTables:
    """Writes what a run would leave but pictures of single images, and prints what it would print."""
    from diffprobe.analyses.probing.report import report
    from diffprobe.report.publish import publish

    jobs = found.group.jobs
    reproduce = [("command", shlex.join(["python", "analyze.py", f"gather={jobs[0].folder.parent}"]))]
    reproduce += [(f"job {job.folder.name}", shlex.join(job.overrides)) for job in jobs]
    settings = jobs[0].settings
    gathered = report(found.scores, found.summaries, seed=settings.seed, published=settings.report.get("published", {}))
    publish(gathered, GatheredRun(folder, console, reproduce))
    return found


def _row(found: GatheredTables, choice: LayerChoice) -> dict[str, Any]:
    """One property of one group: its best layer's test score at the last step."""
    from diffprobe.report.choices import curve

    last = curve(found.summaries, choice, choice.best)[-1]
    values = {name: getattr(last, name) for name in ("layer", "step", "mean", "low", "high", "n")}
    what = {"model": choice.model, "probe": choice.probe, "property": choice.property, "metric": choice.metric}
    return {"group": found.group.name, **what, **values}


def _write_groups(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from diffprobe.files import replacing

    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _groups_table(rows: Sequence[dict[str, Any]]) -> Any:
    """Groups below each other, and below them the mean, lowest and highest of their scores."""
    from rich.table import Table
    from rich.text import Text

    one_probe = len({row["probe"] for row in rows}) == 1
    by_property: dict[str, dict[str, float]] = {}
    for row in rows:
        name = row["property"] if one_probe else f"{row['property']}, {row['probe']}"
        by_property.setdefault(name, {})[row["group"]] = row["mean"]
    table = Table(title="Test scores at the best layer and last step of every group", title_justify="left")
    table.add_column("group")
    for name in by_property:
        table.add_column(name, justify="right", no_wrap=True)
    for group in dict.fromkeys(row["group"] for row in rows):
        cells = [row.get(group) for row in by_property.values()]
        table.add_row(Text(group), *("no score" if cell is None else f"{cell:.2f}" for cell in cells))
    table.add_section()
    table.add_row("mean (lowest, highest)", *(_spread(list(scores.values())) for scores in by_property.values()))
    return table


def _spread(scores: Sequence[float | None]) -> str:
    known = [score for score in scores if score is not None]
    return f"{sum(known) / len(known):.2f} ({min(known):.2f}, {max(known):.2f})" if known else "no score"


def _as_folder(name: str) -> str:
    """A group's name as the name of a folder; that of the only group is none."""
    plain = "".join(letter if letter.isalnum() or letter in "=.,-_+" else "_" for letter in name)
    return plain.replace("..", "__")  # never a folder above

"""The closing table of a run, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffprobe.report.choices import METRIC_NAMES, Choice, curve, position_row
from diffprobe.report.names import short_names
from diffprobe.report.verdicts import interval_text, verdict_lines

if TYPE_CHECKING:
    from diffprobe.probes.summaries import Emergence
    from diffprobe.probes.tables import Summary

WIDTH = 100


def print_report(
    summaries: Sequence[Summary], choices: Sequence[Choice], console: Console | None = None, split: str = "test"
) -> None:
    """Prints the closing table and, below it, the verdicts."""
    console = console or Console()
    console.print(closing_table(summaries, choices, split))
    for line in verdict_lines(summaries, choices, split):
        console.print(Text(f"- {line}"))


def report_text(summaries: Sequence[Summary], choices: Sequence[Choice], split: str = "test") -> str:
    """What `print_report` prints, as plain text of 100 columns, for a file."""
    console = Console(file=StringIO(), width=WIDTH, color_system=None)
    print_report(summaries, choices, console, split)
    return console.file.getvalue()  # type: ignore[union-attr]


def closing_table(summaries: Sequence[Summary], choices: Sequence[Choice], split: str = "test") -> Table:
    """One column a property: the best layer's score at each step, then what it is to be compared with."""
    table = Table(
        title=f"Scores on {split} images at the best layer, with 95 % intervals over images",
        caption="Best layer: chosen on validation images at the last step. Steps count from 1.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("step", no_wrap=True)
    for choice in choices:
        heading = Text(f"{choice.property}\n{METRIC_NAMES.get(choice.metric, choice.metric)}")
        table.add_column(heading, justify="right", no_wrap=True)
    scores = [{row.step: row for row in curve(summaries, choice, choice.best, split=split)} for choice in choices]
    steps = sorted(set().union(*scores))
    for step in steps:
        _add(table, str(step + 1), [interval_text(rows.get(step)) for rows in scores])
    if steps:
        table.add_section()
        _add_comparisons(table, summaries, choices, steps[-1], split)
    return table


def _add_comparisons(
    table: Table, summaries: Sequence[Summary], choices: Sequence[Choice], last: int, split: str
) -> None:
    names = short_names(row.layer for row in summaries)

    def at_last(choice: Choice, layer: str, control: str = "none") -> str:
        rows = {row.step: row for row in curve(summaries, choice, layer, control, split)}
        return interval_text(rows.get(last))

    headline = names.get(choices[0].headline, "not probed")
    _add(table, "best layer", [names.get(choice.best, choice.best) for choice in choices])
    _add(table, "emerged by step", [_emergence_text(choice.emergence) for choice in choices])
    _add(table, f"papers' layer ({headline}), step {last + 1}", [at_last(item, item.headline) for item in choices])
    _add(table, f"permuted network, step {last + 1}", [at_last(item, item.best, "permuted") for item in choices])
    _add(table, "pixel position only", [interval_text(position_row(summaries, item, split)) for item in choices])


def _emergence_text(found: Emergence) -> str:
    if found.step is None:
        return "not determined"
    if found.low is None or found.high is None:
        return str(found.step + 1)
    return f"{found.step + 1} [{found.low + 1}, {found.high + 1}]"


def _add(table: Table, head: str, cells: Sequence[str]) -> None:
    # Text, since rich would take square brackets in plain strings for markup
    table.add_row(Text(head), *(Text(cell) for cell in cells))

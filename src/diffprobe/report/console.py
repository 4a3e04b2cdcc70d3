"""The closing table of a run, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffprobe.report.choices import (
    METRIC_NAMES,
    Choice,
    at_step,
    control_curve,
    control_name,
    controls,
    curve,
    grouped,
)
from diffprobe.report.names import short_names
from diffprobe.report.verdicts import interval_text, verdict_lines
from diffprobe.tables import NO_STEP
from diffprobe.terminal import plain_console

if TYPE_CHECKING:
    from diffprobe.probes.summaries import Emergence

WIDTH = 100


def print_report(
    summaries: pd.DataFrame, choices: Sequence[Choice], console: Console | None = None, split: str = "test"
) -> None:
    """Prints a closing table for each model and probe and, below them, the verdicts."""
    console = console or plain_console()
    for group, members in grouped(choices).items():
        console.print(closing_table(summaries, members, split, group))
    for line in verdict_lines(summaries, choices, split):
        console.print(Text(f"- {line}"))


def report_text(summaries: pd.DataFrame, choices: Sequence[Choice], split: str = "test") -> str:
    """What `print_report` prints, as plain text of 100 columns, for a file."""
    console = plain_console(file=StringIO(), width=WIDTH, color_system=None)
    print_report(summaries, choices, console, split)
    return console.file.getvalue()  # type: ignore[union-attr]


def closing_table(summaries: pd.DataFrame, choices: Sequence[Choice], split: str = "test", group: str = "") -> Table:
    """One column a property: the best layer's score at each step, then what it is to be compared with.

    The choices are of one model and probe, which `group` names where there are others.
    """
    what = f"Scores on {split} images at the best layer, with 95 % intervals over images"
    table = Table(
        title=Text(f"{group}: {what}" if group else what),
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
        _add_comparisons(table, summaries, choices, steps, split)
    return table


def _add_comparisons(
    table: Table, summaries: pd.DataFrame, choices: Sequence[Choice], steps: Sequence[int], split: str
) -> None:
    last = steps[-1]
    names = short_names(summaries["layer"])
    papers = [at_step(curve(summaries, item, item.headline, split=split), last) for item in choices]
    headline = names.get(choices[0].headline, "not probed")
    _add(table, "best layer", [names.get(choice.best, choice.best) for choice in choices])
    if len(steps) > 1:  # of one step alone nothing emerges
        _add(table, "emerged by step", [_emergence_text(choice.emergence) for choice in choices])
    _add(table, f"papers' layer ({headline}), step {last + 1}", [interval_text(row) for row in papers])
    for control in dict.fromkeys(name for choice in choices for name in controls(summaries, choice)):
        rows = [at_step(control_curve(summaries, choice, control, split), last) for choice in choices]
        of_steps = {row.step for row in rows if row is not None}
        moment = "" if of_steps == {NO_STEP} else f", step {last + 1}"
        _add(table, f"{control_name(control)}{moment}", [interval_text(row) for row in rows])


def _emergence_text(found: Emergence) -> str:
    if found.step is None:
        return "not determined"
    if found.low is None or found.high is None:
        return str(found.step + 1)
    return f"{found.step + 1} [{found.low + 1}, {found.high + 1}]"


def _add(table: Table, head: str, cells: Sequence[str]) -> None:
    # Text, since rich would take square brackets in plain strings for markup
    table.add_row(Text(head), *(Text(cell) for cell in cells))

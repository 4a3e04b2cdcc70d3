"""The steps of emergence and the scores over the steps as tables, for a terminal and for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffprobe.report.choices import METRIC_NAMES, control_curve, curve
from diffprobe.report.console import WIDTH
from diffprobe.report.emergence_verdict import Told, emergence_lines, lead_text, step_text
from diffprobe.report.names import short_names
from diffprobe.report.numbers import rounded
from diffprobe.report.paper_table import Cell, PaperTable, write_table
from diffprobe.report.verdicts import interval_text
from diffprobe.studies.image_models import IMAGE_MODEL
from diffprobe.studies.leads import DEFINITIONS, OWN, Lead
from diffprobe.tables import NO_STEP
from diffprobe.terminal import plain_console

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary

HEADINGS = ("property", "level", "probe", "image model", "lead in steps")
CAPTION = (
    "First step whose mean score reaches the level, and the lead of the probe, with 95 % intervals over test images. "
    "Steps count from 1"
)


def print_emergence(summaries: Sequence[Summary], told: Sequence[Told], console: Console) -> None:
    """Prints the closing table and, below it, the verdict."""
    console.print(emergence_table(told))
    for line in emergence_lines(summaries, told):
        console.print(Text(f"- {line}"))


def emergence_text(summaries: Sequence[Summary], told: Sequence[Told]) -> str:
    """What `print_emergence` prints, as plain text of 100 columns, for a file."""
    file = StringIO()
    print_emergence(summaries, told, plain_console(file=file, width=WIDTH, color_system=None))
    return file.getvalue()


def emergence_table(told: Sequence[Told]) -> Table:
    """The closing table: of every property the steps of probe and image model and the lead, by both definitions."""
    table = Table(title=CAPTION, title_justify="left", caption=_layers(told), caption_justify="left")
    for heading in HEADINGS:
        table.add_column(heading)
    for one in told:
        table.add_section()
        for definition in DEFINITIONS:
            # Text, since rich would take square brackets in plain strings for markup
            table.add_row(*(Text(cell) for cell in _cells(one.lead(definition))))
    return table


def write_emergence_tables(folder: Path, summaries: Sequence[Summary], told: Sequence[Told]) -> list[Path]:
    """Writes emergence.* (all fractions) and scores_by_step.* as .csv, .md and .tex into `folder`."""
    tables = {"emergence": _leads_table(told), "scores_by_step": _scores_table(summaries, told)}
    return [path for name, table in tables.items() for path in write_table(folder, name, table).values()]


def _layers(told: Sequence[Told]) -> str:
    """Which layers the probes are on."""
    names = short_names(one.choice.best for one in told)
    if len(names) == 1:
        return f"Probes on {next(iter(names.values()))}"
    return "Probes on " + ", ".join(f"{names[one.choice.best]} ({one.choice.property})" for one in told)


def _cells(lead: Lead) -> list[str]:
    whose = "of its own final score" if lead.definition == OWN else "of the probe's"
    levels = f"{rounded(lead.probe_level)}, {rounded(lead.image_model_level)}"
    level = levels if lead.definition == OWN else rounded(lead.probe_level)
    return [
        f"{lead.property}, {METRIC_NAMES.get(lead.metric, lead.metric)}",
        f"{100 * lead.fraction:g} % {whose}: {level}",
        step_text(lead.probe_step, lead.probe_low, lead.probe_high),
        step_text(lead.image_model_step, lead.image_model_low, lead.image_model_high),
        lead_text(lead),
    ]


def _leads_table(told: Sequence[Told]) -> PaperTable:
    rows = []
    for one in told:
        for lead in one.leads:
            name, level, *texts = _cells(lead)
            keys = {"property": name, "level": level}
            numbers = (
                _steps(lead.probe_step, lead.probe_low, lead.probe_high),
                _steps(lead.image_model_step, lead.image_model_low, lead.image_model_high),
                {"": lead.lead, "low": lead.lead_low, "high": lead.lead_high},
            )
            cells = [Cell(text, values) for text, values in zip(texts, numbers, strict=True)]
            rows.append((keys, dict(zip(HEADINGS[2:], cells, strict=True))))
    return PaperTable(f"{CAPTION}. {_layers(told)}", rows, [])


def _steps(step: int, low: int, high: int) -> dict[str, float | str | None]:
    """Steps from 1, as the text has them."""
    values = {"": step, "low": low, "high": high}
    return {name: None if value == NO_STEP else float(value + 1) for name, value in values.items()}


def _scores_table(summaries: Sequence[Summary], told: Sequence[Told]) -> PaperTable:
    choices = [one.choice for one in told]
    columns: dict[str, dict[int, Summary]] = {}
    for choice in choices:
        for who, rows in (
            ("probe", curve(summaries, choice, choice.best)),
            ("image model", control_curve(summaries, choice, IMAGE_MODEL)),
        ):
            columns[f"{choice.property}, {who}"] = {row.step: row for row in rows}
    steps = sorted(set().union(*columns.values()))
    lines: list[tuple[Mapping[str, str], Mapping[str, Cell]]] = [
        ({"step": str(step + 1)}, {heading: _score_cell(rows.get(step)) for heading, rows in columns.items()})
        for step in steps
    ]
    metrics = ", ".join(f"{choice.property} {METRIC_NAMES.get(choice.metric, choice.metric)}" for choice in choices)
    return PaperTable(
        f"Mean score on test images after each step, with 95 % intervals over images: {metrics}", lines, []
    )


def _score_cell(row: Summary | None) -> Cell:
    numbers = {} if row is None else {"": row.mean, "low": row.low, "high": row.high, "n": float(row.n)}
    return Cell(interval_text(row), numbers)

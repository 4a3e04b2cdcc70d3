"""From a `Report` to the run folder, the console, report.html and the tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffprobe.files import replacing, write_text
from diffprobe.probes.score_table import write_scores
from diffprobe.report.columns import lines_of, notes_of
from diffprobe.report.html.page import asked
from diffprobe.report.report import Animation, Report, Table
from diffprobe.report.wording import latex_table, markdown_table
from diffprobe.terminal import plain_console

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.report.tracking import Tracker

WIDTH = 100  # columns of report.txt


class Run(Protocol):
    """Where a report goes.

    `config` is the composed configuration as plain values, `reproduce` says as (what, answer) how to make it again.
    Without a tracker nothing is logged.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def reproduce(self) -> Sequence[tuple[str, str]]: ...

    @property
    def console(self) -> Console: ...

    @property
    def tracker(self) -> Tracker | None: ...


def publish(report: Report, run: Run) -> None:
    """Writes tables, artifacts, figures, report.txt and report.html, logs all to the tracker, prints the findings."""
    folder = run.folder
    files = {"tables": write_tables(report, folder)}
    files |= {name: list(save(folder / name)) for name, save in report.artifacts.items()}
    figures = draw_figures(report, folder / "figures")
    write_text(folder / "report.txt", report_text(report))
    _write_page(report, run, figures)
    if run.tracker is not None:
        run.tracker.log_report(report, figures, files)
    print_report(report, run.console)
    if run.tracker is not None:
        run.console.print(run.tracker.describe(), soft_wrap=True)


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Writes the tables of a report and returns their files."""
    return [path for name, table in report.tables.items() for path in _write(table, folder / name)]


def draw_figures(report: Report, folder: Path) -> dict[str, Path]:
    """Draws every figure once: PNG and PDF, or GIF (and MP4) of what moves. The PNG or GIF by name."""
    from diffprobe.report.animation import write_animation
    from diffprobe.report.style import save_figure

    drawn = {}
    for name, figure in report.figures.items():
        if isinstance(figure, Animation):
            drawn[name] = write_animation(folder, name, figure.frames)["gif"]
        else:
            drawn[name] = save_figure(figure.draw(), folder, name)["png"]
    return drawn


def print_report(report: Report, console: Console | None = None) -> None:
    """Prints the tables for the console and, below them, the findings."""
    from rich.text import Text

    console = console or plain_console()
    for table in report.tables.values():
        if "console" in table.show:
            console.print(console_table(table))
            for note in notes_of(table):
                console.print(Text(note))
            console.print()
    for line in report.findings:
        console.print(Text(f"- {line}"))


def report_text(report: Report) -> str:
    """What `print_report` prints, as plain text of 100 columns."""
    file = StringIO()
    print_report(report, plain_console(file=file, width=WIDTH, color_system=None))
    return file.getvalue()


def console_table(table: Table) -> Any:
    """A table for `rich`. Numbers stand on the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    headings, *lines = lines_of(table)
    shown = RichTable(
        title=Text(table.title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for place, heading in enumerate(headings):
        numeric = place > 0 and any(line[place][:1].isdigit() or line[place][:1] == "-" for line in lines)
        shown.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        shown.add_row(*map(Text, line))  # Text, since rich would take square brackets in plain strings for markup
    return shown


def _write(table: Table, path: Path) -> list[Path]:
    """The files of a table: `path`.csv at full precision, .md and .tex (needs booktabs) as people read it."""
    written = []
    if "csv" in table.show:
        written.append(path.with_name(f"{path.name}.csv"))
        with replacing(written[-1]) as temporary:
            table.data.to_csv(temporary, index=False, lineterminator="\n")
    if "parquet" in table.show:
        written.append(write_scores(path.parent, table.data))
    if "markup" in table.show:
        lines, notes = lines_of(table), notes_of(table)
        texts = {
            "md": f"{table.title}\n\n{markdown_table(lines, notes)}",
            "tex": latex_table(lines, [table.title, *notes]),
        }
        written += [write_text(path.with_name(f"{path.name}.{ending}"), text) for ending, text in texts.items()]
    return written


def _write_page(report: Report, run: Run, figures: Mapping[str, Path]) -> None:
    from diffprobe.report.html.page import page_html

    recorded = run.folder / ".hydra" / "config.yaml"
    page = page_html(
        report,
        {name: path for name, path in figures.items() if path.suffix == ".png"},
        asked(run.config, report.topics) if run.config else (),
        run.reproduce,
        recorded.read_text(encoding="utf-8") if recorded.exists() else "",
    )
    write_text(run.folder / "report.html", page)

"""From a `Report` to the run folder, the console, report.html and the tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffprobe.files import replacing, write_text
from diffprobe.probes.score_table import write_scores
from diffprobe.report.page import page_html, questions
from diffprobe.report.report import Animation, Headed, Report, Table
from diffprobe.report.tables import latex_table, lines_of, markdown_table, notes_of
from diffprobe.terminal import plain_console

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.report.tracking import Tracker

WIDTH = 100  # columns of report.txt
FRAME_MILLISECONDS = 250


def publish(
    report: Report,
    *,
    folder: Path,
    console: Console,
    tracker: Tracker | None = None,
    config: Mapping[str, Any] | None = None,
    reproduce: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes tables, artifacts, figures, report.txt and report.html, logs all to the tracker, prints the findings.

    Args:
        config: the composed configuration as plain values, of which the page tells what was asked.
        reproduce: (what, answer): how to make the run again.
    """
    files = {"tables": write_tables(report, folder)}
    files |= {name: list(save(folder / name)) for name, save in report.artifacts.items()}
    figures = draw_figures(report, folder / "figures")
    write_text(folder / "report.txt", report_text(report))
    recorded = folder / ".hydra" / "config.yaml"
    page = page_html(
        report,
        {name: path for name, path in figures.items() if path.suffix == ".png"},
        questions(config, report.topics) if config else (),
        reproduce,
        recorded.read_text(encoding="utf-8") if recorded.exists() else "",
    )
    write_text(folder / "report.html", page)
    if tracker is not None:
        tracker.log_report(report, figures, files)
    print_report(report, console)
    if tracker is not None:
        console.print(tracker.describe(), soft_wrap=True)


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Writes the tables of a report: CSV at full precision, Markdown and LaTeX (needs booktabs) as people read them."""
    written = []
    for name, table in report.tables.items():
        path = folder / name
        if "csv" in table.show:
            written.append(path.with_name(f"{path.name}.csv"))
            with replacing(written[-1]) as temporary:
                table.data.to_csv(temporary, index=False, lineterminator="\n")
        if "parquet" in table.show:
            written.append(write_scores(path.parent, table.data))
        if "markup" in table.show:
            lines, notes = lines_of(table), notes_of(table)
            markdown = f"{table.title}\n\n{markdown_table(lines, notes)}"
            written.append(write_text(path.with_name(f"{path.name}.md"), markdown))
            latex = latex_table(lines, [table.title, *notes])
            written.append(write_text(path.with_name(f"{path.name}.tex"), latex))
    return written


def draw_figures(report: Report, folder: Path) -> dict[str, Path]:
    """Draws every figure once: PNG and PDF, or GIF (and MP4) of what moves. The PNG or GIF by name."""
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
    for finding in report.findings:
        if isinstance(finding, Headed):
            console.print(Text(finding.heading))
        for line in finding.lines if isinstance(finding, Headed) else [finding]:
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


def write_animation(folder: Path, name: str, frames: np.ndarray) -> dict[str, Path]:
    """Frames that go forth and back, as '<name>.gif', and '<name>.mp4' where PyAV (the extra 'video') is installed.

    Args:
        frames: [frames, H, W, 3] in [0, 255], at least two.

    Returns:
        The files by 'gif' and 'mp4'.
    """
    around = np.concatenate([frames, frames[-2:0:-1]])
    files = {"gif": write_gif(folder / f"{name}.gif", around)}
    if find_spec("av") is not None:
        files["mp4"] = _write_mp4(folder / f"{name}.mp4", around)
    return files


def write_gif(path: Path, frames: np.ndarray) -> Path:
    """[frames, H, W, 3] in [0, 255] as a GIF without end."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, loop=0)
    return path


def _write_mp4(path: Path, frames: np.ndarray) -> Path:
    """[frames, H, W, 3] in [0, 255] as H.264, which browsers play; it needs even sides, so edges may be doubled."""
    import av

    even = np.pad(frames, [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)], mode="edge")
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(1000, FRAME_MILLISECONDS), options={"crf": "12"})
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in even:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return path

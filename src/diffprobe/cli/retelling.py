"""Tells a finished run again from its tables: `analyze.py`'s job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffprobe.errors import UserError
from diffprobe.runs.recorded import CONFIGURATION, read_recorded
from diffprobe.terminal import plain_console

REPORT_WIDTH = 100  # columns; fewer would cut the closing table's numbers


def rebuild_report(folder: Path, seed: int) -> None:
    """Reads the scores in `folder`, compares, prints the closing table, and writes tables and figures anew.

    Raises:
        UserError: the folder is not there, or holds no run of train.py.
    """
    from diffprobe.analyses.probing.learning_curve import read_learning_curve
    from diffprobe.analyses.probing.report import report
    from diffprobe.probes.score_table import read_scores
    from diffprobe.probes.summaries import summarise
    from diffprobe.report.publish import draw_figures, print_report, write_tables

    if not folder.is_dir():
        raise UserError(f"run={folder}: there is no such folder; give a run folder that train.py made")
    if (folder / CONFIGURATION).is_file() and "analysis" in read_recorded(folder):
        raise UserError(
            f"run={folder} is an analysis, told already in its report.txt and report.html; run= tells a run of train.py"
        )
    learned = folder / "learning_curve.csv"
    more = {"learning_curve": read_learning_curve(learned)} if learned.exists() else {}
    scores = read_scores(folder)
    found = report(scores, summarise(scores), seed=seed, more=more)
    found = replace(found, tables={name: table for name, table in found.tables.items() if name != "scores"})
    write_tables(found, folder)
    figures = draw_figures(found, folder / "figures")
    console = plain_console(REPORT_WIDTH)
    print_report(found, console)
    best = folder / "tables" / "best_layers.md"
    console.print(f"{len(figures)} figures in {folder / 'figures'}, best layers in {best}", soft_wrap=True)

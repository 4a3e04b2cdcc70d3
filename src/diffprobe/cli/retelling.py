"""Tells a finished run again from its tables: `analyze.py`'s job."""

from __future__ import annotations

from pathlib import Path

from diffprobe.errors import UserError
from diffprobe.runs.recorded import CONFIGURATION, read_recorded
from diffprobe.terminal import plain_console

REPORT_WIDTH = 100  # columns; fewer would cut the closing table's numbers


def tell_again(folder: Path, seed: int) -> None:
    """Reads the scores in `folder`, compares, prints the closing table, and writes tables and figures anew.

    Raises:
        UserError: the folder is not there, or holds no run of train.py.
    """
    from diffprobe.analyses.probing.figures import draw_figures
    from diffprobe.analyses.probing.learning_curve import read_learning_curve
    from diffprobe.probes.comparisons import compare_run, write_comparisons
    from diffprobe.probes.score_table import read_scores
    from diffprobe.probes.summaries import summarise, write_summary
    from diffprobe.report.best_layers import write_best_layers
    from diffprobe.report.choices import choose
    from diffprobe.report.console import print_report

    if not folder.is_dir():
        raise UserError(f"run={folder}: there is no such folder; give a run folder that train.py made")
    if (folder / CONFIGURATION).is_file() and "analysis" in read_recorded(folder):
        raise UserError(
            f"run={folder} is an analysis, told already in its report.txt and report.html; run= tells a run of train.py"
        )
    scores = read_scores(folder)
    summaries = summarise(scores)
    comparisons = compare_run(scores, summaries, seed=seed)
    choices = choose(summaries, scores, comparisons)
    learned = folder / "learning_curve.csv"
    learning = read_learning_curve(learned) if learned.exists() else None
    write_summary(folder / "summary.csv", summaries)
    write_comparisons(folder / "comparisons.csv", comparisons)
    tables = write_best_layers(folder / "tables", summaries, choices)
    figures = draw_figures(folder / "figures", summaries, choices, learning=learning)
    console = plain_console(REPORT_WIDTH)
    print_report(summaries, choices, console)
    console.print(f"{len(figures)} figures in {folder / 'figures'}, best layers in {tables['md']}", soft_wrap=True)

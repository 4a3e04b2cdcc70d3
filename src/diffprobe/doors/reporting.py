"""Tells a finished run again from its tables: `analyze.py`'s job."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from diffprobe.doors.errors import plain_errors
from diffprobe.doors.recorded import CONFIGURATION, read_recorded
from diffprobe.errors import UserError

REPORT_WIDTH = 100  # columns; fewer would cut the closing table's numbers


@plain_errors
def run(config: DictConfig) -> None:
    """Reads `config.run`/scores.csv, compares, prints the closing table, and writes tables and figures anew."""
    from rich.console import Console

    from diffprobe.probes.comparisons import compare_run, write_comparisons
    from diffprobe.probes.summaries import summarise
    from diffprobe.probes.tables import read_scores, write_summary
    from diffprobe.report.best_layers import write_best_layers
    from diffprobe.report.choices import choose
    from diffprobe.report.console import print_report
    from diffprobe.report.run_folder import draw_figures
    from diffprobe.studies.learning_curve import read_learning_curve

    folder = Path(config.run)
    if not folder.is_dir():
        raise UserError(f"run={folder}: there is no such folder; give a run folder that train.py made")
    if (folder / CONFIGURATION).is_file() and "analysis" in read_recorded(folder):
        raise UserError(
            f"run={folder} is an analysis, told already in its report.txt and report.html; run= tells a run of train.py"
        )
    scores = read_scores(folder / "scores.csv")
    summaries = summarise(scores, seed=config.seed)
    comparisons = compare_run(scores, summaries, seed=config.seed)
    choices = choose(summaries, scores, comparisons)
    learned = folder / "learning_curve.csv"
    learning = read_learning_curve(learned) if learned.exists() else []
    write_summary(folder / "summary.csv", summaries)
    write_comparisons(folder / "comparisons.csv", comparisons)
    tables = write_best_layers(folder / "tables", summaries, choices)
    figures = draw_figures(folder / "figures", summaries, choices, learning=learning)
    console = Console()
    console = Console(width=max(console.width, REPORT_WIDTH))
    print_report(summaries, choices, console)
    console.print(f"{len(figures)} figures in {folder / 'figures'}, best layers in {tables['md']}", soft_wrap=True)

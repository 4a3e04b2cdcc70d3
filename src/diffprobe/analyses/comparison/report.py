"""What is reported of runs side by side: their headline scores, how these rise over the steps, and differences.

A finding is a sentence; what the intervals do not support is not claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from diffprobe.analyses.comparison.comparison import (
    FinishedRun,
    RunScore,
    SettingRow,
    differing_settings,
    headline_scores,
    run_differences,
)
from diffprobe.probes.comparisons import Comparison
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import summary_rows
from diffprobe.report.choices import METRIC_NAMES, or_nan
from diffprobe.report.numbers import interval, is_number, p_text
from diffprobe.report.report import Plot, Report, Table
from diffprobe.report.style import (
    BEST_STYLE,
    BLUE,
    CONTROL_STYLES,
    DOUBLE_COLUMN,
    HEADLINE_STYLE,
    SINGLE_COLUMN,
    CurveStyle,
    draw_curve,
    shared_legend,
    spread_ticks,
    style,
)
from diffprobe.report.verdicts import difference_text, images_text, significant, too_few

if TYPE_CHECKING:
    pass


def report(folders: Mapping[str, Path], runs: Sequence[FinishedRun], *, seed: int = 0) -> Report:
    """What finished runs have in common and what not.

    Args:
        folders: of the runs, by their name.
        seed: of the intervals and tests of differences.

    Raises:
        UserError: a run has nothing to compare, see `headline_scores`.
    """
    headlines = headline_scores(runs)
    differences = run_differences(runs, headlines, seed=seed)
    figures = {
        "runs_scores": Plot(
            partial(run_scores, headlines),
            "Scores of several runs with 95 % intervals, each at its chosen layer and last step.",
        )
    }
    summaries = {run.name: run.summaries for run in runs if run.summaries is not None}
    if summaries:
        caption = "Scores of several runs over denoising steps with 95 % intervals."
        figures["runs_over_steps"] = Plot(partial(run_curves, headlines, summaries), caption)
    return Report(
        title=f"{len(runs)} runs side by side",
        findings=run_lines(headlines, differences),
        asked=[(name, str(folder)) for name, folder in folders.items()],
        tables={
            "runs": Table.of(RunScore, headlines, title="scores"),
            "comparisons": Table.of(Comparison, differences, title="differences on the same images"),
            "settings": Table.of(SettingRow, differing_settings(runs), title="settings that differ"),
        },
        figures=figures,
    )


RUN_STYLES: list[CurveStyle] = [HEADLINE_STYLE, BEST_STYLE, *CONTROL_STYLES.values()]


@style()
def run_scores(headlines: Sequence[RunScore]) -> Figure:
    """One panel for what is scored: a dot with its 95 % interval for every run."""
    groups = list(dict.fromkeys((row.what, row.metric) for row in headlines))
    most = max(sum((row.what, row.metric) == group for row in headlines) for group in groups)
    width = SINGLE_COLUMN if len(groups) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 0.7 + 0.22 * most), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (what, metric) in zip(panels, groups, strict=True):
        rows = [row for row in headlines if (row.what, row.metric) == (what, metric)]
        for at, row in enumerate(rows):
            axes.plot([or_nan(row.low), or_nan(row.high)], [at, at], color=BLUE, linewidth=1.5)
            axes.plot(or_nan(row.mean), at, "o", color=BLUE, markersize=4)
        axes.set_yticks(range(len(rows)), labels_of(rows))
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=METRIC_NAMES.get(metric, metric))
        axes.set_title(what, parse_math=False)
        axes.grid(axis="x", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


@style()
def run_curves(headlines: Sequence[RunScore], summaries: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel a property: the score of every run's chosen layer over the steps, with 95 % intervals.

    Args:
        summaries: of every run, by its name.
    """
    rows = [row for row in headlines if row.run in summaries and row.n is not None]
    groups = list(dict.fromkeys((row.what, row.metric) for row in rows))
    width = SINGLE_COLUMN if len(groups) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.4), layout="constrained")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    for axes, (what, metric) in zip(panels, groups, strict=True):
        members = [row for row in rows if (row.what, row.metric) == (what, metric)]
        steps: set[int] = set()
        for at, (row, label) in enumerate(zip(members, labels_of(members), strict=True)):
            own = select(summaries[row.run], model=row.model, probe=row.probe, property=what, metric=metric)
            line = summary_rows(select(own, layer=row.layer, control="none", split="test"))
            line.sort(key=lambda each: each.step)
            steps |= {each.step for each in line}
            draw_curve(axes, [each.step + 1 for each in line], line, label, RUN_STYLES[at % len(RUN_STYLES)])
        axes.set_title(what, parse_math=False)
        axes.set(ylabel=METRIC_NAMES.get(metric, metric), ylim=(min(0.0, axes.get_ylim()[0]), 1.02))
        axes.set_xticks([step + 1 for step in spread_ticks(sorted(steps))])
    figure.supxlabel("denoising step", fontsize=8)
    shared_legend(figure, columns=1 if len(groups) == 1 else 3)
    return figure


def labels_of(rows: Sequence[RunScore]) -> list[str]:
    """The runs' names, with what tells rows of one run apart."""
    runs = [row.run for row in rows]
    several = {row.run for row in rows if runs.count(row.run) > 1}
    return [", ".join([row.run, row.model, row.probe]) if row.run in several else row.run for row in rows]


MANY = 6  # more differences are told by their number


def run_lines(headlines: Sequence[RunScore], differences: Sequence[Comparison]) -> list[str]:
    """For each score one sentence with those of all runs, and one for each difference on the same images."""
    lines = []
    for what, metric in dict.fromkeys((row.what, row.metric) for row in headlines):
        rows = [row for row in headlines if (row.what, row.metric) == (what, metric)]
        told = (
            f"{name} {interval(row.mean, row.low, row.high)}" for name, row in zip(labels_of(rows), rows, strict=True)
        )
        lines.append(f"{what}, {METRIC_NAMES.get(metric, metric)}: {'; '.join(told)}.")
        own = [row for row in differences if (row.property, row.metric) == (what, metric)]
        lines += [_difference_line(row, len(own)) for row in own] if len(own) <= MANY else [_many_line(own)]
    return lines


def _difference_line(row: Comparison, comparisons: int) -> str:
    one, other = _names(row)
    if row.n == 0:
        return f"{row.property}: {one} and {other} have no test images in common, so no difference is paired."
    common = f"on the {images_text(row.n)} in common"
    rest = f"; {row.left_out} more lack a score in one of them" if row.left_out else ""
    if needed := too_few(row, comparisons):
        return (
            f"{row.property}: no verdict on {one} and {other} {common} ({difference_text(row)}): it takes {needed} to "
            f"show a difference{rest}."
        )
    verdict = {1: "is above", -1: "is below", 0: "is not shown to differ from"}[significant(row)]
    p = f", p = {p_text(row.p_holm)} after Holm" if is_number(row.p_holm) else ""
    return f"{row.property}: {one} {verdict} {other} {common}: {difference_text(row)}{p}{rest}."


def _names(row: Comparison) -> tuple[str, str]:
    """What the two are called: by their probe too, where they are of one run."""
    if row.model != row.other_model:
        return row.model, row.other_model
    return f"{row.model}, {row.probe}", f"{row.other_model}, {row.other_probe}"


def _many_line(rows: Sequence[Comparison]) -> str:
    apart = sum(significant(row) != 0 for row in rows)
    return (
        f"{rows[0].property}: {apart} of {len(rows)} differences on the same images are shown; comparisons.csv has all."
    )

"""Runs side by side: their headline scores, and how these rise over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from diffprobe.report.choices import METRIC_NAMES, number
from diffprobe.report.looks import BEST, CONTROLS, HEADLINE, Look, draw_curve, shared_legend, spread_ticks
from diffprobe.report.style import BLUE, DOUBLE_COLUMN, SINGLE_COLUMN, style

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary
    from diffprobe.studies.run_comparison import RunScore

LOOKS: list[Look] = [HEADLINE, BEST, *CONTROLS.values()]


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
            axes.plot([number(row.low), number(row.high)], [at, at], color=BLUE, linewidth=1.5)
            axes.plot(number(row.mean), at, "o", color=BLUE, markersize=4)
        axes.set_yticks(range(len(rows)), labels_of(rows))
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=METRIC_NAMES.get(metric, metric))
        axes.set_title(what, parse_math=False)
        axes.grid(axis="x", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


@style()
def run_curves(headlines: Sequence[RunScore], summaries: Mapping[str, Sequence[Summary]]) -> Figure:
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
            wanted = (row.model, row.probe, what, metric, row.layer, "none", "test")
            line = [
                each
                for each in summaries[row.run]
                if (each.model, each.probe, each.property, each.metric, each.layer, each.control, each.split) == wanted
            ]
            line.sort(key=lambda each: each.step)
            steps |= {each.step for each in line}
            draw_curve(axes, [each.step + 1 for each in line], line, label, LOOKS[at % len(LOOKS)])
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

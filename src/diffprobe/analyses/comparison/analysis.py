"""Finished runs side by side: headline scores, curves over the steps, and differences on common images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from diffprobe.analyses.analysis import Plan
from diffprobe.analyses.comparison.maps import MANY, side_by_side
from diffprobe.analyses.comparison.runs import (
    FinishedRun,
    RunScore,
    by_score,
    headline_scores,
    labels_of,
    named_folders,
    read_run,
    run_labels,
    scores_of,
)
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import summary_rows
from diffprobe.ranges import Folder, Items
from diffprobe.report.choices import metric_name, or_nan
from diffprobe.report.report import Plot, Report, Table
from diffprobe.report.style import (
    BEST_STYLE,
    BLUE,
    CONTROL_STYLES,
    HEADLINE_STYLE,
    CurveStyle,
    curve_panels,
    draw_over_steps,
    label_scores,
    shared_legend,
    style,
)
from diffprobe.report.wording import (
    difference_text,
    direction,
    images_text,
    interval,
    is_number,
    p_text,
    significant,
    too_few,
)
from diffprobe.runs.folder import FINISHED, begun_jobs

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs

FAMILY = "run"
RUN_STYLES: list[CurveStyle] = [HEADLINE_STYLE, BEST_STYLE, *CONTROL_STYLES.values()]


@dataclass(frozen=True)
class Comparison:
    """Finished runs side by side.

    Attributes:
        runs: their folders, at least two; the folder of a sweep stands for its finished jobs.
    """

    runs: Annotated[list[Folder], Items(distinct=False)] = field(default_factory=list)
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> dict[Path, FinishedRun]:
        folders = []
        for folder in map(Path, self.runs):
            jobs = [] if (folder / FINISHED).exists() else begun_jobs(folder)
            folders += [job for job in jobs if (job / FINISHED).exists()] or [folder]
        return {place: read_run(name, place) for name, place in named_folders(folders).items()}

    def plan(self, task: dict[Path, FinishedRun]) -> Plan:
        return Plan([f"{len(task)} runs: {', '.join(run.name for run in task.values())}"])

    def run(self, task: dict[Path, FinishedRun], context: RunContext) -> None:
        """There is nothing to compute but statistics."""

    def report(self, task: dict[Path, FinishedRun], result: None, context: RunContext) -> Report:
        """Raises UserError for a run with nothing to compare, see `headline_scores`."""
        runs = list(task.values())
        headlines = headline_scores(runs)
        differences = run_differences(runs, headlines, seed=context.seed)
        caption = "Scores of several runs with 95 % intervals, each at its chosen layer and last step."
        figures = {"runs_scores": Plot(partial(run_scores, headlines), caption)}
        summaries = {run.name: run.summaries for run in runs if run.summaries is not None}
        if summaries:
            caption = "Scores of several runs over denoising steps with 95 % intervals."
            figures["runs_over_steps"] = Plot(partial(run_curves, headlines, summaries), caption)
        return Report(
            title=f"{len(runs)} runs side by side",
            findings=run_lines(headlines, differences),
            questions=[(run.name, str(place)) for place, run in task.items()],
            tables={
                "runs": Table.of(RunScore, headlines, title="scores"),
                "comparisons": Table.of(ScoreDifference, differences, title="differences on the same images"),
                "settings": Table(differing_settings(runs), title="settings that differ"),
            },
            figures=figures,
            side_by_side=side_by_side(runs, headlines, seed=context.seed),
        )


def run_differences(
    runs: Sequence[FinishedRun], headlines: Sequence[RunScore], *, seed: int = 0
) -> list[ScoreDifference]:
    """Each headline score of images less each other's of the same property, paired by image; `model` is the run's name,
    and which of its models where it has several.

    Of runs without images in common `n` is 0 and the rest None. Tables of objects have no scores image by image.
    """
    labels = run_labels(runs)
    differences = []
    for (what, metric), rows in by_score(headlines).items():
        rows = [row for row in rows if (row.run, row.model) in labels]
        keys = [ScoreKey(labels[row.run, row.model], row.layer, row.step, row.probe) for row in rows]
        layers = {row.layer for row in rows}
        pairs = list(combinations(keys, 2))
        if pairs:
            scores = scores_of(runs, layers)
            differences += compare(scores, pairs, property=what, metric=metric, family=FAMILY, seed=seed)
    return differences


def differing_settings(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """settings.csv: the settings in which the runs differ, and their values; '' in a run that lacks the setting."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    differing = [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]
    rows = [(key, run.name, str(run.settings.get(key, ""))) for key in differing for run in runs]
    return pd.DataFrame(rows, columns=["setting", "run", "value"], dtype="str")


@style()
def run_scores(headlines: Sequence[RunScore]) -> Figure:
    """One panel for what is scored: a dot with its 95 % interval for every run."""
    groups = by_score(headlines)
    figure, panels = curve_panels(len(groups), "")
    figure.set_figheight(0.7 + 0.22 * max(map(len, groups.values())))
    for axes, ((what, metric), rows) in zip(panels, groups.items(), strict=True):
        for at, row in enumerate(rows):
            axes.plot([or_nan(row.low), or_nan(row.high)], [at, at], color=BLUE, linewidth=1.5)
            axes.plot(or_nan(row.mean), at, "o", color=BLUE, markersize=4)
        axes.set_yticks(range(len(rows)), labels_of(rows))
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=metric_name(metric))
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
    groups = by_score([row for row in headlines if row.run in summaries and row.n is not None])
    figure, panels = curve_panels(len(groups))
    for axes, ((what, metric), members) in zip(panels, groups.items(), strict=True):
        steps: set[int] = set()
        for at, (row, label) in enumerate(zip(members, labels_of(members), strict=True)):
            own = select(summaries[row.run], model=row.model, probe=row.probe, property=what, metric=metric)
            line = summary_rows(select(own, layer=row.layer, control="none", split="test"))
            line.sort(key=lambda each: each.step)
            steps |= {each.step for each in line}
            draw_over_steps(axes, line, label, RUN_STYLES[at % len(RUN_STYLES)])
        axes.set_title(what, parse_math=False)
        label_scores(axes, metric, sorted(steps))
    shared_legend(figure)
    return figure


def run_lines(headlines: Sequence[RunScore], differences: Sequence[ScoreDifference]) -> list[str]:
    """For each score one sentence with those of all runs, and one for each difference on the same images."""
    lines = []
    for (what, metric), rows in by_score(headlines).items():
        labels = zip(labels_of(rows), rows, strict=True)
        texts = [f"{label} {interval(row.mean, row.low, row.high)}" for label, row in labels]
        lines.append(f"{what}, {metric_name(metric)}{direction(metric)}: {'; '.join(texts)}.")
        own = [row for row in differences if (row.property, row.metric) == (what, metric)]
        if len(own) <= MANY:
            lines += [_difference_line(row, len(own)) for row in own]
        else:
            apart = sum(significant(row) != 0 for row in own)
            lines.append(
                f"{what}: {apart} of {len(own)} differences on the same images are shown; comparisons.csv has all."
            )
    return lines


def _difference_line(row: ScoreDifference, comparisons: int) -> str:
    one, other = row.model, row.other_model
    if one == other:  # two probes of one run
        one, other = f"{one}, {row.probe}", f"{other}, {row.other_probe}"
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

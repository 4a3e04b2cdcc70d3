"""What is reported of runs side by side: their headline scores, how these rise over the steps, and differences.

A finding is a sentence; what the intervals do not support is not claimed.

Finished runs side by side: each one's headline scores, and differences on the images that they share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.files import Step
from diffprobe.labels.classifiers import PROPERTY as CLASS
from diffprobe.labels.classifiers import TOP_1
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare
from diffprobe.probes.properties import PROPERTIES, property_named
from diffprobe.probes.score_table import TEXT, concatenate, select
from diffprobe.probes.summaries import best_layer, summary_rows
from diffprobe.report.choices import METRIC_NAMES, or_nan
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
from diffprobe.report.wording import difference_text, images_text, interval, is_number, p_text, significant, too_few

if TYPE_CHECKING:
    pass


FAMILY = "run"
STATISTICS = {("auc", "scdi", "dcdi"): "AUC of scdi < dcdi", ("knn_accuracy", "", ""): "nearest-neighbour accuracy"}
TEST_COLUMNS = {  # of tests.csv, that are compared
    **dict.fromkeys(("model", "layer", "measure", "set_a", "set_b", "statistic"), TEXT),
    "step": pa.int16(),
    **dict.fromkeys(("value", "low", "high"), pa.float64()),
}


@dataclass(frozen=True)
class FinishedRun:
    """The tables that a run folder has, `tests` with `TEST_COLUMNS`, and its settings by dotted key."""

    name: str
    scores: pd.DataFrame | None = None
    summaries: pd.DataFrame | None = None
    tests: pd.DataFrame | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunScore:
    """runs.csv: a headline score of a run, with its interval over `n` images (None where that is not recorded).

    A probe's layer is the best on validation images at the last step; that of objects the highest at any step.
    """

    run: str
    model: str
    probe: str
    what: str
    metric: str
    layer: str
    step: Step
    mean: float | None
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class SettingRow:
    """settings.csv: a setting in which the runs differ, and its value in one of them."""

    setting: str
    run: str
    value: str


def headline_scores(runs: Sequence[FinishedRun]) -> list[RunScore]:
    """Those of every run, model, probe and property, and of its objects.

    Raises:
        UserError: a run has no table that any can be read from, or no layer can be chosen.
    """
    found = []
    for run in runs:
        own = [*_of_scores(run), *_of_objects(run)]
        if not own:
            raise UserError(f"the run {run.name} has no scores on test images and no tests of objects to compare")
        found += own
    return found


def run_differences(
    runs: Sequence[FinishedRun], headlines: Sequence[RunScore], *, seed: int = 0
) -> list[ScoreDifference]:
    """Each headline score of images less each other's of the same property, paired by image; `model` is the run's name.

    Of runs without images in common `n` is 0 and the rest None. Tables of objects have no scores image by image.
    """
    labels = _labels(runs)
    found = []
    for what, metric in dict.fromkeys((row.what, row.metric) for row in headlines):
        chosen = [
            row for row in headlines if (row.what, row.metric) == (what, metric) and (row.run, row.model) in labels
        ]
        keys = [ScoreKey(labels[row.run, row.model], row.layer, row.step, row.probe) for row in chosen]
        layers = {row.layer for row in chosen}
        pairs = list(combinations(keys, 2))
        if pairs:
            scores = concatenate([_relabelled(run, labels, layers) for run in runs if run.scores is not None])
            found += compare(scores, pairs, property=what, metric=metric, family=FAMILY, seed=seed)
    return found


def differing_settings(runs: Sequence[FinishedRun]) -> list[SettingRow]:
    """What was set otherwise in some run than in the others; a run that lacks the setting has none of it."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    differing = [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]
    return [SettingRow(key, run.name, str(run.settings.get(key, ""))) for key in differing for run in runs]


def headline_metric(name: str) -> str:
    """The metric by which a property is told."""
    return TOP_1 if name == CLASS else property_named(name).headline


def _of_scores(run: FinishedRun) -> list[RunScore]:
    if run.summaries is None:
        return []
    real = summary_rows(select(run.summaries, control="none"))
    real = [row for row in real if row.property in (*PROPERTIES, CLASS)]
    found = []
    for name, model, probe in dict.fromkeys((row.property, row.model, row.probe) for row in real):
        metric = headline_metric(name)
        layer = None if name == CLASS else best_layer(run.summaries, name, model=model, probe=probe)
        rows = [
            row
            for row in real
            if (row.property, row.model, row.probe, row.metric, row.split) == (name, model, probe, metric, "test")
            and layer in (None, row.layer)
        ]
        if rows:
            last = max(rows, key=lambda row: row.step)
            values = (last.mean, last.low, last.high, last.n)
            found.append(RunScore(run.name, model, probe, name, metric, last.layer, last.step, *values))
    return found


def _of_objects(run: FinishedRun) -> list[RunScore]:
    if run.tests is None:
        return []
    found = []
    tests = run.tests[run.tests["value"].notna()]
    for (statistic, set_a, set_b), name in STATISTICS.items():
        rows = select(tests, statistic=statistic, set_a=set_a, set_b=set_b)
        for model, measure in rows[["model", "measure"]].drop_duplicates().itertuples(index=False):
            own = select(rows, model=model, measure=measure)
            best = own.iloc[int(own["value"].argmax())]
            low, high = (None if pd.isna(end) else end for end in (best["low"], best["high"]))
            place = (f"objects ({measure})", name, best["layer"], best["step"])
            found.append(RunScore(run.name, model, "", *place, best["value"], low, high, None))
    return found


def _labels(runs: Sequence[FinishedRun]) -> dict[tuple[str, str], str]:
    """(run, model) -> the run's name, and which of its models where it has several; of runs with scores."""
    models = {run.name: run.scores["model"].unique() for run in runs if run.scores is not None}
    return {(run, model): f"{run}: {model}" if len(own) > 1 else run for run, own in models.items() for model in own}


def _relabelled(run: FinishedRun, labels: Mapping[tuple[str, str], str], layers: Collection[str]) -> pd.DataFrame:
    """The test scores of a run at these layers, with its label in place of the model."""
    assert run.scores is not None
    scores = select(run.scores, split="test")
    scores = scores[scores["layer"].isin(layers)]
    model = scores["model"].cat.remove_unused_categories()
    names = [labels[run.name, name] for name in model.cat.categories]
    return scores.assign(model=model.cat.rename_categories(names))


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
            "comparisons": Table.of(ScoreDifference, differences, title="differences on the same images"),
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


def run_lines(headlines: Sequence[RunScore], differences: Sequence[ScoreDifference]) -> list[str]:
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


def _difference_line(row: ScoreDifference, comparisons: int) -> str:
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


def _names(row: ScoreDifference) -> tuple[str, str]:
    """What the two are called: by their probe too, where they are of one run."""
    if row.model != row.other_model:
        return row.model, row.other_model
    return f"{row.model}, {row.probe}", f"{row.other_model}, {row.other_probe}"


def _many_line(rows: Sequence[ScoreDifference]) -> str:
    apart = sum(significant(row) != 0 for row in rows)
    return (
        f"{rows[0].property}: {apart} of {len(rows)} differences on the same images are shown; comparisons.csv has all."
    )

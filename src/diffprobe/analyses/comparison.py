"""Finished runs side by side: headline scores, curves over the steps, and differences on common images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure

from diffprobe.analyses.analysis import Plan
from diffprobe.errors import UserError
from diffprobe.files import Step
from diffprobe.labels.classifiers import PROPERTY as CLASS
from diffprobe.labels.classifiers import TOP_1
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare
from diffprobe.probes.score_table import TEXT, concatenate, read_csv, read_scores, scores_file, select
from diffprobe.probes.summaries import best_layer, headline_metric, read_summary, summary_rows
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
from diffprobe.runs.folder import CONFIGURATION, FINISHED, RUN_ONLY_KEYS, begun_jobs, read_recorded
from diffprobe.runs.settings import flattened

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.inputs import Inputs

FAMILY = "run"
STATISTICS = {("auc", "scdi", "dcdi"): "AUC of scdi < dcdi", ("knn_accuracy", "", ""): "nearest-neighbour accuracy"}
TEST_COLUMNS = {  # of tests.csv, that are compared
    **dict.fromkeys(("model", "layer", "measure", "set_a", "set_b", "statistic"), TEXT),
    "step": pa.int16(),
    **dict.fromkeys(("value", "low", "high"), pa.float64()),
}
RUN_STYLES: list[CurveStyle] = [HEADLINE_STYLE, BEST_STYLE, *CONTROL_STYLES.values()]
MANY = 6  # more differences of one score are only counted in the findings


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
        return {place: read_run(name, place) for name, place in _named(folders).items()}

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
        )


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by the shortest ends of their paths that tell all apart.

    Raises:
        UserError: fewer than two, one twice, one that is not there or is not finished.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError(
            f"analysis.runs={[str(folder) for folder in folders]}: give the folders of at least two different runs"
        )
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"analysis.runs: there is no folder {folder}")
        if not (folder / FINISHED).exists():
            raise UserError(f"analysis.runs: {folder} is no finished run, since it has no {FINISHED}; finish it first")
    parts = [folder.resolve().parts for folder in folders]
    lengths = range(1, max(map(len, parts)) + 1)
    names = (["/".join(each[-length:]) for each in parts] for length in lengths)
    return dict(zip(next(some for some in names if len(set(some)) == len(some)), folders, strict=True))


def read_run(name: str, folder: Path) -> FinishedRun:
    """Raises UserError for a run without a table that can be compared."""
    summary, tests = folder / "summary.csv", folder / "tests.csv"
    scored = scores_file(folder) is not None
    if not (scored or summary.exists() or tests.exists()):
        raise UserError(f"analysis.runs: {folder} has neither scores nor tests.csv, so there is nothing to compare")
    settings = flattened(read_recorded(folder)) if (folder / CONFIGURATION).exists() else {}
    return FinishedRun(
        name,
        scores=read_scores(folder) if scored else None,
        summaries=read_summary(summary) if summary.exists() else None,
        tests=read_csv(tests, TEST_COLUMNS) if tests.exists() else None,
        settings={key: value for key, value in settings.items() if key not in RUN_ONLY_KEYS},
    )


def headline_scores(runs: Sequence[FinishedRun]) -> list[RunScore]:
    """Those of every run, model, probe and property, and of its objects.

    Raises:
        UserError: a run has no table that any can be read from, or no layer can be chosen.
    """
    scores = []
    for run in runs:
        own = [*_of_probes(run), *_of_objects(run)]
        if not own:
            raise UserError(f"the run {run.name} has no scores on test images and no tests of objects to compare")
        scores += own
    return scores


def _of_probes(run: FinishedRun) -> list[RunScore]:
    if run.summaries is None:
        return []
    real = select(run.summaries, control="none", split="test")
    scores = []
    for name, model, probe in real[["property", "model", "probe"]].drop_duplicates().itertuples(index=False):
        metric = TOP_1 if name == CLASS else headline_metric(real, name).name
        rows = select(real, property=name, model=model, probe=probe, metric=metric)
        if name != CLASS:
            rows = select(rows, layer=best_layer(run.summaries, name, model=model, probe=probe))
        if len(rows):
            last = max(summary_rows(rows), key=lambda row: row.step)
            values = (last.mean, last.low, last.high, last.n)
            scores.append(RunScore(run.name, model, probe, name, metric, last.layer, last.step, *values))
    return scores


def _of_objects(run: FinishedRun) -> list[RunScore]:
    if run.tests is None:
        return []
    scores = []
    tests = run.tests[run.tests["value"].notna()]
    for (statistic, set_a, set_b), name in STATISTICS.items():
        rows = select(tests, statistic=statistic, set_a=set_a, set_b=set_b)
        for model, measure in rows[["model", "measure"]].drop_duplicates().itertuples(index=False):
            own = select(rows, model=model, measure=measure)
            best = own.iloc[int(own["value"].argmax())]
            low, high = (None if pd.isna(end) else end for end in (best["low"], best["high"]))
            place = (f"objects ({measure})", name, best["layer"], best["step"])
            scores.append(RunScore(run.name, model, "", *place, best["value"], low, high, None))
    return scores


def _by_score(headlines: Sequence[RunScore]) -> dict[tuple[str, str], list[RunScore]]:
    """(what is scored, metric) -> the rows of all runs."""
    groups: dict[tuple[str, str], list[RunScore]] = {}
    for row in headlines:
        groups.setdefault((row.what, row.metric), []).append(row)
    return groups


def run_differences(
    runs: Sequence[FinishedRun], headlines: Sequence[RunScore], *, seed: int = 0
) -> list[ScoreDifference]:
    """Each headline score of images less each other's of the same property, paired by image; `model` is the run's name,
    and which of its models where it has several.

    Of runs without images in common `n` is 0 and the rest None. Tables of objects have no scores image by image.
    """
    models = {run.name: run.scores["model"].unique() for run in runs if run.scores is not None}
    labels = {(run, model): f"{run}: {model}" if len(own) > 1 else run for run, own in models.items() for model in own}
    differences = []
    for (what, metric), rows in _by_score(headlines).items():
        rows = [row for row in rows if (row.run, row.model) in labels]
        keys = [ScoreKey(labels[row.run, row.model], row.layer, row.step, row.probe) for row in rows]
        layers = {row.layer for row in rows}
        pairs = list(combinations(keys, 2))
        if pairs:
            scores = concatenate([_relabelled(run, labels, layers) for run in runs if run.scores is not None])
            differences += compare(scores, pairs, property=what, metric=metric, family=FAMILY, seed=seed)
    return differences


def _relabelled(run: FinishedRun, labels: Mapping[tuple[str, str], str], layers: Collection[str]) -> pd.DataFrame:
    """The test scores of a run at these layers, with its label in place of the model."""
    assert run.scores is not None
    scores = select(run.scores, split="test")
    scores = scores[scores["layer"].isin(layers)]
    model = scores["model"].cat.remove_unused_categories()
    names = [labels[run.name, name] for name in model.cat.categories]
    return scores.assign(model=model.cat.rename_categories(names))


def differing_settings(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """settings.csv: the settings in which the runs differ, and their values; '' in a run that lacks the setting."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    differing = [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]
    rows = [(key, run.name, str(run.settings.get(key, ""))) for key in differing for run in runs]
    return pd.DataFrame(rows, columns=["setting", "run", "value"], dtype="str")


@style()
def run_scores(headlines: Sequence[RunScore]) -> Figure:
    """One panel for what is scored: a dot with its 95 % interval for every run."""
    groups = _by_score(headlines)
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
    groups = _by_score([row for row in headlines if row.run in summaries and row.n is not None])
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


def labels_of(rows: Sequence[RunScore]) -> list[str]:
    """The runs' names, with what tells rows of one run apart."""
    runs = [row.run for row in rows]
    several = {row.run for row in rows if runs.count(row.run) > 1}
    return [", ".join([row.run, row.model, row.probe]) if row.run in several else row.run for row in rows]


def run_lines(headlines: Sequence[RunScore], differences: Sequence[ScoreDifference]) -> list[str]:
    """For each score one sentence with those of all runs, and one for each difference on the same images."""
    lines = []
    for (what, metric), rows in _by_score(headlines).items():
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

"""Finished runs as they are compared: their tables, their headline scores, and what they are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa

from diffprobe.errors import UserError
from diffprobe.files import Step
from diffprobe.labels.classifiers import PROPERTY as CLASS
from diffprobe.labels.classifiers import TOP_1
from diffprobe.probes.score_table import TEXT, concatenate, read_csv, read_scores, scores_file, select
from diffprobe.probes.summaries import best_layer, headline_metric, read_summary, summary_rows
from diffprobe.runs.folder import CONFIGURATION, FINISHED, RUN_ONLY_KEYS, read_recorded
from diffprobe.runs.settings import flattened

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


def named_folders(folders: Sequence[Path]) -> dict[str, Path]:
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


def by_score(headlines: Sequence[RunScore]) -> dict[tuple[str, str], list[RunScore]]:
    """(what is scored, metric) -> the rows of all runs."""
    groups: dict[tuple[str, str], list[RunScore]] = {}
    for row in headlines:
        groups.setdefault((row.what, row.metric), []).append(row)
    return groups


def labels_of(rows: Sequence[RunScore]) -> list[str]:
    """The runs' names, with what tells rows of one run apart."""
    runs = [row.run for row in rows]
    several = {row.run for row in rows if runs.count(row.run) > 1}
    return [", ".join([row.run, row.model, row.probe]) if row.run in several else row.run for row in rows]


def run_labels(runs: Sequence[FinishedRun]) -> dict[tuple[str, str], str]:
    """(run, model) -> the run's name, and which of its models where it has several; of runs with scores of images."""
    models = {run.name: run.scores["model"].unique() for run in runs if run.scores is not None}
    return {(run, model): f"{run}: {model}" if len(own) > 1 else run for run, own in models.items() for model in own}


def scores_of(runs: Sequence[FinishedRun], layers: Collection[str], **wanted: str) -> pd.DataFrame:
    """The test scores of all runs at these layers, each with its label of `run_labels` in place of the model."""
    labels = run_labels(runs)
    return concatenate([_relabelled(run, labels, layers, wanted) for run in runs if run.scores is not None])


def _relabelled(
    run: FinishedRun, labels: Mapping[tuple[str, str], str], layers: Collection[str], wanted: Mapping[str, str]
) -> pd.DataFrame:
    assert run.scores is not None
    scores = select(run.scores, split="test", **wanted)
    scores = scores[scores["layer"].isin(layers)]
    model = scores["model"].cat.remove_unused_categories()
    names = [labels[run.name, name] for name in model.cat.categories]
    return scores.assign(model=model.cat.rename_categories(names))

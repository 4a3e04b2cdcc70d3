"""Finished runs side by side: each one's headline scores, and differences on the images that they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pandas as pd

from diffprobe.errors import UserError
from diffprobe.labels.classifiers.classifier import PROPERTY as CLASS
from diffprobe.labels.classifiers.classifier import TOP_1
from diffprobe.probes.comparisons import Comparison, ScoreKey, compare
from diffprobe.probes.properties import PROPERTIES, property_named
from diffprobe.probes.score_table import concatenate, select
from diffprobe.probes.summaries import best_layer, summary_rows
from diffprobe.prototypes.tables import TestRow
from diffprobe.tables import Step

FAMILY = "run"
STATISTICS = {("auc", "scdi", "dcdi"): "AUC of scdi < dcdi", ("knn_accuracy", "", ""): "nearest-neighbour accuracy"}


@dataclass(frozen=True)
class FinishedRun:
    """The tables that a run folder has, and its settings by dotted key."""

    name: str
    scores: pd.DataFrame | None = None
    summaries: pd.DataFrame | None = None
    tests: Sequence[TestRow] = ()
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


def run_differences(runs: Sequence[FinishedRun], headlines: Sequence[RunScore], *, seed: int = 0) -> list[Comparison]:
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
    found = []
    for (statistic, set_a, set_b), name in STATISTICS.items():
        rows = [row for row in run.tests if (row.statistic, row.set_a, row.set_b) == (statistic, set_a, set_b)]
        for model, measure in dict.fromkeys((row.model, row.measure) for row in rows):
            own = [row for row in rows if (row.model, row.measure) == (model, measure) and row.value is not None]
            if own:
                best = max(own, key=lambda row: row.value or 0.0)
                place = (f"objects ({measure})", name, best.layer, best.step)
                found.append(RunScore(run.name, model, "", *place, best.value, best.low, best.high, None))
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

"""From scores per image to means with intervals, the best layer, and the step of emergence."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP, Step
from diffprobe.probes.score_table import COLUMNS, group_rows, over_steps, read_csv, select
from diffprobe.properties.metrics import Metric, headline_of, metric_named
from diffprobe.statistics.differences import best_of, steps_reaching
from diffprobe.statistics.intervals import MeanIntervals, mean_intervals

_VALUES_AT_ONCE = 2**15  # of which a few copies are held while means are computed
_MEANS = ("mean", "low", "high")


@dataclass(frozen=True, slots=True)
class Summary:
    """A row of `summarise`: None for what is missing, and NO_STEP where there is no step."""

    model: str
    layer: str
    step: Step
    timestep: float | None
    property: str
    probe: str
    control: str
    split: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class EmergenceStep:
    """0-based step at which a property has emerged, with its interval over the `n` images of the last step.

    All None if it never does; `low` and `high` None where the images are too few for an interval, or where the last
    score is not shown to be above 0.
    """

    step: int | None
    low: int | None
    high: int | None
    n: int = 0


KEYS = tuple(field.name for field in fields(Summary))[:-4]
SUMMARY_COLUMNS = {name: COLUMNS[name] for name in KEYS} | dict.fromkeys(_MEANS, pa.float64()) | {"n": pa.int64()}


def summarise(scores: pd.DataFrame, *, differences: bool = False) -> pd.DataFrame:
    """Mean and interval over images (`mean_intervals`) for every key of a table of `score_table`, in their order.

    differences: the values are differences of scores, so they may be beyond the range of their metric.

    Returns the columns of `SUMMARY_COLUMNS`, of which `n` is the number of images with a defined value. `mean` is
    missing where `n` is 0; `low` and `high` also below `MINIMUM_IMAGES`.
    """
    groups, values = group_rows(scores, KEYS), scores["value"].to_numpy()
    mean, low, high, n = np.empty((4, len(groups.sizes)))
    for size in np.unique(groups.sizes):
        places = np.flatnonzero(groups.sizes == size)
        for some in np.array_split(places, -(-len(places) * size // _VALUES_AT_ONCE)):
            rows = groups.order[groups.starts[some][:, None] + np.arange(size)]
            mean[some], low[some], high[some], n[some] = mean_intervals(values[rows])
    keys = scores.iloc[groups.first][list(KEYS)].reset_index(drop=True)
    if not differences:
        metrics = {name: metric_named(name) for name in keys["metric"].unique()}
        lowest, highest = (
            keys["metric"].map({name: getattr(metric, end) for name, metric in metrics.items()}).to_numpy(float)
            for end in ("low", "high")
        )
        low, high = np.maximum(low, lowest), np.minimum(high, highest)
    unbounded = np.isnan(low) | np.isnan(high)
    low[unbounded], high[unbounded] = np.nan, np.nan
    return keys.assign(mean=mean, low=low, high=high, n=n.astype(int))


def summary_rows(summaries: pd.DataFrame) -> list[Summary]:
    """The rows of a table of `summarise`, one by one."""
    columns = []
    for name in SUMMARY_COLUMNS:
        column, missing = summaries[name].astype(object), NO_STEP if name == "step" else None
        columns.append(column.where(column.notna(), missing).tolist())
    return [Summary(*row) for row in zip(*columns, strict=True)]


def read_summary(path: Path) -> pd.DataFrame:
    """Reads summary.csv. Raises UserError as `read_csv`."""
    return read_csv(path, SUMMARY_COLUMNS)


def best_layer(
    summaries: pd.DataFrame,
    name: str,
    *,
    model: str | None = None,
    probe: str | None = None,
    control: str = "none",
    step: int | None = None,
) -> str:
    """The layer with the best headline metric of property `name` on *validation* images at the last step (or `step`),
    the highest score or the lowest error.

    Ranked by `best_of`, so that a layer is not chosen for the few images on which it has a score. `model` and `probe`
    may be left out where the rows are of one alone. Raises UserError when they are of several, or when there are no
    such rows.
    """
    rows = select(summaries, property=name, split="validation", control=control)
    if not len(rows):
        raise UserError(f"no layer to choose for {name}: no scores on validation images.")
    metric = headline_metric(rows, name)
    rows = select(rows, metric=metric.name)
    rows = _rows_of(rows[rows["mean"].notna()], model, probe)
    steps = rows["step"].fillna(NO_STEP)
    at = (steps.max() if len(steps) else 0) if step is None else step
    rows = rows[steps == at]
    if not len(rows):
        raise UserError(f"no layer to choose for {name}: no {metric.name} on validation images at step {at}.")
    return best_of(summary_rows(rows), lambda row: metric.sign * (row.mean or 0.0), lambda row: row.n).layer


def emergence_step(
    scores: pd.DataFrame,
    layer: str,
    name: str,
    *,
    fraction: float = 0.95,
    model: str | None = None,
    probe: str | None = None,
    control: str = "none",
) -> EmergenceStep:
    """First step whose mean headline metric over the test images reaches `fraction` of the last step's mean: of an
    error, whose mean is at most the last one divided by `fraction`.

    Each image's score is compared with `fraction` of its own last one (`steps_reaching`); scores whose last mean is not
    above zero have no step. `model` and `probe` as in `best_layer`. Raises UserError as it does.
    """
    steps, _, above, last = levelled(scores, layer, name, fraction=fraction, model=model, probe=probe, control=control)
    n = int(last.n[0])
    if not last.mean[0] > 0:
        return EmergenceStep(None, None, None, n)
    found = steps_reaching(above)
    if found.low is None or found.high is None or not last.low[0] > 0:
        return EmergenceStep(steps[found.first], None, None, n)
    return EmergenceStep(steps[found.first], steps[found.low], steps[found.high], n)


class LevelledScores(NamedTuple):
    """Steps and images of scores, by how much each image's score is better than its own level [steps, images], and the
    mean score at the last step."""

    steps: list[int]
    images: list[str]
    above: np.ndarray
    last: MeanIntervals


def levelled(
    scores: pd.DataFrame,
    layer: str,
    name: str,
    *,
    fraction: float,
    model: str | None = None,
    probe: str | None = None,
    control: str = "none",
) -> LevelledScores:
    """Headline scores of the test images, each held against `fraction` of its own last one, as in `emergence_step`."""
    rows = select(scores, layer=layer, property=name, split="test", control=control)
    if not len(rows):
        raise UserError(f"no test scores of {name} at layer {layer!r}.")
    metric = headline_metric(rows, name)
    steps, images, values = over_steps(_rows_of(select(rows, metric=metric.name), model, probe))
    level = values[-1] * (fraction if metric.higher_is_better else 1 / fraction)
    return LevelledScores(steps, images, metric.sign * (values - level), mean_intervals(values[-1:]))


def headline_metric(rows: pd.DataFrame, name: str) -> Metric:
    """The metric that layers of property `name` are chosen by, of a table that has some of its rows.

    Raises UserError for a table without any.
    """
    found = select(rows, property=name)["metric"].unique()
    if not len(found):
        raise UserError(f"no scores of {name}.")
    return metric_named(headline_of(found))


def _rows_of(rows: pd.DataFrame, model: str | None, probe: str | None) -> pd.DataFrame:
    """The rows of one model and one probe: the given ones, else the only ones."""
    for column, wanted in (("model", model), ("probe", probe)):
        present = list(rows[column].unique())
        if wanted is None and len(present) > 1:
            raise UserError(f"the scores are of several {column}s ({', '.join(present)}): say {column}=... of which.")
        if wanted is not None:
            rows = select(rows, **{column: wanted})
    return rows

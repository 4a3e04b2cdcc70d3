"""Scores as one object a row: what tests write by hand, and the slow, obvious way of what is computed in columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from operator import attrgetter

import numpy as np
import pandas as pd

from diffprobe.files import NO_STEP, Step
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.probes.summaries import Summary
from diffprobe.properties.metrics import metric_named
from diffprobe.statistics.intervals import mean_intervals

_KEY = attrgetter("model", "layer", "step", "timestep", "property", "probe", "control", "split", "metric")
_PAIR = attrgetter("model", "layer", "step", "property", "probe", "split", "image", "metric")


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one image. `step` is NO_STEP where there is none; `value` is None where it is undefined."""

    model: str
    layer: str
    step: Step
    timestep: float | None
    property: str
    probe: str
    control: str
    split: str
    image: str
    metric: str
    value: float | None


def table_of(rows: Iterable[Score]) -> pd.DataFrame:
    """The table of these rows, in their order."""
    return score_table([_block(row) for row in rows])


def summary_table(rows: Iterable[Summary]) -> pd.DataFrame:
    """The table of these means, in their order."""
    names = [field.name for field in fields(Summary)]
    table = pd.DataFrame(map(attrgetter(*names), rows), columns=names)
    step = table["step"].astype("Int16")
    return table.assign(step=step.mask(step == NO_STEP)).astype(
        dict.fromkeys(("timestep", "mean", "low", "high"), float)
    )


def rows_of(scores: pd.DataFrame) -> list[Score]:
    """The rows of a table, in their order."""
    rows = scores.itertuples(index=False)
    return [Score(*(_cell(name, cell) for name, cell in zip(scores.columns, row, strict=True))) for row in rows]


def summaries_of(scores: Sequence[Score], *, differences: bool = False) -> list[tuple]:
    """Of every key, in the order of its first row: the key, mean, low, high and n; None for what is missing."""
    values: dict[tuple, list[float]] = {}
    for row in scores:
        values.setdefault(_KEY(row), []).append(np.nan if row.value is None else row.value)
    found = []
    for key, numbers in values.items():
        means = mean_intervals(np.array([numbers]))
        mean, low, high, n = means.mean[0], means.low[0], means.high[0], int(means.n[0])
        metric = metric_named(key[-1])
        lowest, highest = (-np.inf, np.inf) if differences else (metric.low, metric.high)
        ends = (None, None) if np.isnan(low) or np.isnan(high) else (max(low, lowest), min(high, highest))
        found.append((*key, mean, *ends, n) if n else (*key, None, None, None, 0))
    return found


def selectivity_of(scores: Sequence[Score]) -> list[tuple]:
    """Real scores less those with shuffled labels, summarised."""
    real = {_PAIR(row): row.value for row in scores if row.control == "none"}
    differences = []
    for row in scores:
        if row.control == "labels":
            pair = real[_PAIR(row)], row.value
            value = None if None in pair else pair[0] - pair[1]  # type: ignore[operator]
            differences.append(Score(*astuple(row)[:6], "selectivity", *astuple(row)[7:10], value))
    return summaries_of(differences, differences=True)


def cells_of(table: pd.DataFrame) -> list[tuple]:
    """The rows of any table as plain tuples: NO_STEP for a missing step, None for other missing cells."""
    return [
        tuple(_cell(name, cell) for name, cell in zip(table.columns, row, strict=True))
        for row in table.itertuples(index=False)
    ]


def _block(row: Score) -> ScoreBlock:
    return ScoreBlock(
        model=row.model,
        layer=row.layer,
        property=row.property,
        probe=row.probe,
        control=row.control,
        split=row.split,
        metric=row.metric,
        moments=[(row.step, row.timestep)],
        images=[row.image],
        values=np.array([[np.nan if row.value is None else row.value]]),
    )


def _cell(name: str, cell: object) -> object:
    if pd.isna(cell):  # type: ignore[call-overload]
        return NO_STEP if name == "step" else None
    return cell

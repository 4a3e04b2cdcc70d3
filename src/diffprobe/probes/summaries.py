"""From scores per image to means with intervals, the best layer, and the step of emergence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

import numpy as np

from diffprobe.errors import UserError
from diffprobe.probes.properties import property_named
from diffprobe.probes.tables import Score, Summary
from diffprobe.statistics import best_of, mean_intervals, steps_reaching

Row = TypeVar("Row", Score, Summary)
_KEYS = attrgetter("model", "layer", "step", "timestep", "property", "probe", "control", "split", "metric")
RANGES = {  # no interval goes beyond what a metric can be
    "dice": (0.0, 1.0),
    "dice_background": (0.0, 1.0),
    "confidence": (0.0, 1.0),
    "spearman": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "rmse": (0.0, np.inf),
}
_ANY = (-np.inf, np.inf)


@dataclass(frozen=True)
class Emergence:
    """0-based step at which a property has emerged, with its interval over the `n` images of the last step.

    All None if it never does; `low` and `high` None where there are too few images for an interval, or where the last
    score is not shown to be above 0.
    """

    step: int | None
    low: int | None
    high: int | None
    n: int = 0


def summarise(scores: Sequence[Score], *, level: float = 0.95, differences: bool = False) -> list[Summary]:
    """Mean and interval over images (`statistics.mean_intervals`) for every key of the scores, in their order.

    `n` counts the images with a defined value; below `statistics.MINIMUM_IMAGES` there is no interval.

    Args:
        differences: the values are differences of scores, so they may be beyond the range of their metric.
    """
    by_key: dict[tuple, list[float]] = {}
    for row in scores:
        by_key.setdefault(_KEYS(row), []).append(np.nan if row.value is None else row.value)
    by_length: dict[int, list[tuple]] = {}
    for key, values in by_key.items():
        by_length.setdefault(len(values), []).append(key)
    found: dict[tuple, tuple] = {}
    for keys in by_length.values():
        means = mean_intervals(np.array([by_key[key] for key in keys]), level)
        ranges = np.array([_ANY if differences else RANGES.get(key[-1], _ANY) for key in keys])
        low, high = np.maximum(means.low, ranges[:, 0]), np.minimum(means.high, ranges[:, 1])
        rows = zip(means.mean.tolist(), low.tolist(), high.tolist(), means.n.tolist(), strict=True)
        found.update(zip(keys, (_cells(*row) for row in rows), strict=True))
    return [Summary(*key, *found[key]) for key in by_key]


def best_layer(
    summaries: Iterable[Summary],
    name: str,
    *,
    model: str | None = None,
    probe: str | None = None,
    control: str = "none",
    step: int | None = None,
) -> str:
    """The layer with the best headline metric of property `name` on *validation* images at the last step (or `step`).

    Images without a score count as 0, and layers with scores of less than half of the images come last
    (`statistics.rank_value`), so that a layer is not chosen for the few images on which it has a score.
    `model` and `probe` may be left out where the rows are of one alone. Raises UserError when they are of several, or
    when there are no such rows.
    """
    metric = property_named(name).headline
    wanted = (name, metric, "validation", control)
    rows = [
        row
        for row in summaries
        if (row.property, row.metric, row.split, row.control) == wanted and row.mean is not None
    ]
    rows = _of_one(rows, model, probe)
    at = max((row.step for row in rows), default=0) if step is None else step
    rows = [row for row in rows if row.step == at]
    if not rows:
        raise UserError(f"no layer to choose for {name}: no {metric} on validation images at step {at}.")
    return best_of(rows, lambda row: row.mean or 0.0, lambda row: row.n).layer


def emergence_step(
    scores: Iterable[Score],
    layer: str,
    name: str,
    *,
    fraction: float = 0.95,
    model: str | None = None,
    probe: str | None = None,
    control: str = "none",
    level: float = 0.95,
) -> Emergence:
    """First step whose mean headline metric over the test images reaches `fraction` of the last step's mean.

    Each image's score is compared with `fraction` of its own last one (`statistics.steps_reaching`); scores whose last
    mean is not above zero have no step. `model` and `probe` as in `best_layer`. Raises UserError as it does.
    """
    metric = property_named(name).headline
    wanted = (layer, name, metric, "test", control)
    rows = [row for row in scores if (row.layer, row.property, row.metric, row.split, row.control) == wanted]
    by_step: dict[int, dict[str, float]] = {}
    for row in _of_one(rows, model, probe):
        by_step.setdefault(row.step, {})[row.image] = np.nan if row.value is None else row.value
    if not by_step:
        raise UserError(f"no test scores ({metric}) of {name} at layer {layer!r}.")
    steps = sorted(by_step)
    images = list(by_step[steps[-1]])
    values = np.array([[by_step[step].get(image, np.nan) for image in images] for step in steps])
    last = mean_intervals(values[-1:], level)
    n = int(last.n[0])
    if not last.mean[0] > 0:
        return Emergence(None, None, None, n)
    found = steps_reaching(values - fraction * values[-1], level)
    if found.low is None or found.high is None or not last.low[0] > 0:
        return Emergence(steps[found.first], None, None, n)
    return Emergence(steps[found.first], steps[found.low], steps[found.high], n)


def _of_one(rows: list[Row], model: str | None, probe: str | None) -> list[Row]:
    """The rows of one model and one probe: the given ones, else the only ones."""
    for column, asked in (("model", model), ("probe", probe)):
        of = attrgetter(column)
        present = dict.fromkeys(map(of, rows))
        if asked is None and len(present) > 1:
            raise UserError(f"the scores are of several {column}s ({', '.join(present)}): say {column}=... of which.")
        rows = [row for row in rows if of(row) == (asked or of(row))]
    return rows


def _cells(mean: float, low: float, high: float, n: int) -> tuple[float | None, float | None, float | None, int]:
    if not n:
        return None, None, None, 0
    return (mean, None, None, n) if np.isnan(low) or np.isnan(high) else (mean, low, high, n)

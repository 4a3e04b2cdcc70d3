"""From scores per image to means with bootstrap intervals, the best layer, and the step of emergence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

import numpy as np

from diffprobe.errors import UserError
from diffprobe.probes.properties import property_named
from diffprobe.probes.tables import Score, Summary
from diffprobe.statistics import resampling_counts

Row = TypeVar("Row", Score, Summary)
_KEYS = attrgetter("model", "layer", "step", "timestep", "property", "probe", "control", "split", "metric")
_COLUMNS_AT_ONCE = 1024  # bounds the memory of the resampled means to 2000 x 1024 numbers


@dataclass(frozen=True)
class Emergence:
    """0-based step at which a property has emerged, with its bootstrap interval; all None if it never does."""

    step: int | None
    low: int | None
    high: int | None


def summarise(scores: Sequence[Score], *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> list[Summary]:
    """Mean and percentile bootstrap interval over images for every key of the scores, in their order.

    Images, not pixels, are resampled (Efron and Tibshirani 1993, chapter 13). Keys with the same images share one
    matrix of resamples, so their means can be compared pair by pair. `n` counts the images with a defined value.
    """
    by_key: dict[tuple, tuple[list[str], list[float]]] = {}
    for row in scores:
        images, values = by_key.setdefault(_KEYS(row), ([], []))
        images.append(row.image)
        values.append(np.nan if row.value is None else row.value)
    by_images: dict[tuple[str, ...], list[tuple]] = {}
    for key, (images, _) in by_key.items():
        by_images.setdefault(tuple(images), []).append(key)
    found: dict[tuple, tuple] = {}
    for images, keys in by_images.items():
        counts = resampling_counts(len(images), resamples, seed)
        for start in range(0, len(keys), _COLUMNS_AT_ONCE):
            chunk = keys[start : start + _COLUMNS_AT_ONCE]
            values = np.array([by_key[key][1] for key in chunk])
            found.update(zip(chunk, _intervals(values, counts, level), strict=True))
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
    return max(rows, key=lambda row: row.mean or 0.0).layer


def emergence_step(
    scores: Iterable[Score],
    layer: str,
    name: str,
    *,
    fraction: float = 0.95,
    model: str | None = None,
    probe: str | None = None,
    control: str = "none",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Emergence:
    """First step whose mean headline metric over the test images reaches `fraction` of the last step's mean.

    The interval resamples images and recomputes the step; resamples (or scores) whose last mean is not above zero have
    no step. `model` and `probe` as in `best_layer`. Raises UserError as it does.
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
    images = list(by_step[steps[0]])
    values = np.array([[by_step[step][image] for image in images] for step in steps])
    point = _first_reaching(resampled_means(values, np.ones((1, len(images)))), fraction)
    drawn = _first_reaching(resampled_means(values, resampling_counts(len(images), resamples, seed)), fraction)
    if len(point) == 0 or len(drawn) == 0:
        return Emergence(None, None, None)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(drawn, tails, method="inverted_cdf")
    return Emergence(steps[point[0]], steps[int(low)], steps[int(high)])


def _of_one(rows: list[Row], model: str | None, probe: str | None) -> list[Row]:
    """The rows of one model and one probe: the given ones, else the only ones."""
    for column, asked in (("model", model), ("probe", probe)):
        of = attrgetter(column)
        present = dict.fromkeys(map(of, rows))
        if asked is None and len(present) > 1:
            raise UserError(f"the scores are of several {column}s ({', '.join(present)}): say {column}=... of which.")
        rows = [row for row in rows if of(row) == (asked or of(row))]
    return rows


def resampled_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means [resamples, keys] of values [keys, images] weighted by counts [resamples, images], without the NaN."""
    defined = ~np.isnan(values)
    weight = counts @ defined.T.astype(float)
    with np.errstate(invalid="ignore"):
        return (counts @ np.where(defined, values, 0.0).T) / weight


def _intervals(values: np.ndarray, counts: np.ndarray, level: float) -> list[tuple]:
    """(mean, low, high, n) of each row of values [keys, images]."""
    drawn = resampled_means(values, counts)
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = np.quantile(drawn, tails, axis=0)
    for column in np.flatnonzero(np.isnan(drawn).any(0)):
        kept = drawn[:, column][~np.isnan(drawn[:, column])]
        bounds[:, column] = np.quantile(kept, tails) if len(kept) else np.nan
    number = (~np.isnan(values)).sum(1)
    mean = resampled_means(values, np.ones((1, values.shape[1])))[0]
    return [
        (m, low, high, n) if n else (None, None, None, 0)
        for m, low, high, n in zip(mean.tolist(), *bounds.tolist(), number.tolist(), strict=True)
    ]


def _first_reaching(means: np.ndarray, fraction: float) -> np.ndarray:
    """Index of the first of means [resamples, steps] that reaches `fraction` of the last; rows without one left out."""
    last = means[:, -1:]
    usable = (last > 0)[:, 0]
    return (means >= fraction * last)[usable].argmax(1)

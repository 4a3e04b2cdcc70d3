"""The rows of an intervention: scores, their means, and what the edit gains over its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffprobe.statistics import resampling_counts

UNEDITED, RANDOM, EDITED = "unedited", "random", "none"
CONTROLS = (UNEDITED, RANDOM)


@dataclass(frozen=True, slots=True)
class InterventionScore:
    """One metric of one image of one trial. `control` is 'none' for the edit itself, 'unedited' for the image as it is
    without intervention, 'random' for changes of equal length in random directions; None where it is undefined."""

    model: str
    property: str
    target: str
    method: str
    control: str
    image: str
    trial: int
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True)
class InterventionSummary:
    """Mean over `n` images, each the mean of its trials, with its 95 % bootstrap interval."""

    model: str
    property: str
    target: str
    method: str
    control: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class InterventionGain:
    """By how much the edit's metric is above a control's on the same `n` images, with its 95 % bootstrap interval."""

    model: str
    property: str
    target: str
    method: str
    control: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    n: int


def summarise_interventions(
    scores: Sequence[InterventionScore], *, resamples: int = 2000, seed: int = 0
) -> tuple[list[InterventionSummary], list[InterventionGain]]:
    """Means of every method, control and metric, and the gains of each method over its controls.

    Images are resampled, with all their trials (Efron and Tibshirani 1993, chapter 13).
    """
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in scores:
        key = (row.model, row.property, row.target, row.method, row.control, row.metric)
        values = groups.setdefault(key, {}).setdefault(row.image, [])
        if row.value is not None:
            values.append(row.value)
    means = {
        key: {name: float(np.mean(values)) for name, values in images.items() if values}
        for key, images in groups.items()
    }
    summaries = []
    for key, values in means.items():
        cells: tuple = (*key, *_interval(list(values.values()), resamples, seed))
        summaries.append(InterventionSummary(*cells))
    gains = []
    for key, edited in means.items():
        *before, control, metric = key
        for other in CONTROLS if control == EDITED else ():
            against = means.get((*before, other, metric), {})
            both = [edited[image] - against[image] for image in edited if image in against]
            if both:
                cells = (*before, other, metric, *_interval(both, resamples, seed))
                gains.append(InterventionGain(*cells))
    return summaries, gains


def _interval(
    values: Sequence[float], resamples: int, seed: int
) -> tuple[float | None, float | None, float | None, int]:
    """Mean, bounds of the percentile interval, and number of values."""
    if not values:
        return None, None, None, 0
    drawn = resampling_counts(len(values), resamples, seed) @ np.asarray(values) / len(values)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high), len(values)

"""The rows of an intervention: scores, their means, and what the edit gains over its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffprobe.probes.summaries import RANGES
from diffprobe.statistics.differences import holm, paired_differences
from diffprobe.statistics.intervals import mean_intervals

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
    """Mean over `n` images, each the mean of its trials, with its 95 % interval; no ends where images are too few."""

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
    """By how much the edit's metric is above a control's on the same `n` images, with its 95 % interval and p.

    `p` is two-sided, and `p_holm` adjusted for the other gains by that metric."""

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
    p: float | None = None
    p_holm: float | None = None


def summarise_interventions(
    scores: Sequence[InterventionScore], *, seed: int = 0
) -> tuple[list[InterventionSummary], list[InterventionGain]]:
    """Means of every method, control and metric, and the gains of each method over its controls.

    An image counts once, with the mean of its trials. Gains are `statistics.paired_differences`, with `seed` for its
    random flips; `p_holm` adjusts for all methods and controls by the same metric.
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
        cells: tuple = (*key, *_mean(list(values.values()), key[-1]))
        summaries.append(InterventionSummary(*cells))
    gains = []
    for key, edited in means.items():
        *before, control, metric = key
        for other in CONTROLS if control == EDITED else ():
            against = means.get((*before, other, metric), {})
            both = [edited[image] - against[image] for image in edited if image in against]
            if both:
                gains.append(InterventionGain(*before, other, metric, *_gain(both, seed)))  # type: ignore[arg-type]
    return summaries, _adjusted(gains)


def _mean(values: Sequence[float], metric: str) -> tuple[float | None, float | None, float | None, int]:
    """Mean, ends of its interval, and number of values."""
    if not values:
        return None, None, None, 0
    found = mean_intervals(np.array([values], float))
    least, most = RANGES.get(metric, (-np.inf, np.inf))
    low, high = np.maximum(found.low, least), np.minimum(found.high, most)
    return _known(found.mean[0]), _known(low[0]), _known(high[0]), len(values)


def _gain(differences: Sequence[float], seed: int) -> tuple[float | int | None, ...]:
    """Mean difference, ends of its interval, number of images, and p."""
    found = paired_differences(np.array([differences], float), seed=seed)
    middle, low, high, p = (_known(cell[0]) for cell in (found.difference, found.low, found.high, found.p))
    return middle, low, high, len(differences), p


def _adjusted(gains: Sequence[InterventionGain]) -> list[InterventionGain]:
    """With Holm's p within each metric of a model, property and target."""
    found = list(gains)
    families: dict[tuple[str, ...], list[int]] = {}
    for place, gain in enumerate(found):
        families.setdefault((gain.model, gain.property, gain.target, gain.metric), []).append(place)
    for places in families.values():
        for place, p in zip(places, holm([found[at].p or 0.0 for at in places]), strict=True):
            found[place] = replace(found[place], p_holm=p)
    return found


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

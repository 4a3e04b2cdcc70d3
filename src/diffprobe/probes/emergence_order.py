"""Which of several properties emerges first: differences of their steps of emergence, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from diffprobe.errors import UserError
from diffprobe.files import Step
from diffprobe.probes.summaries import LevelledScores, emergence_step, levelled
from diffprobe.statistics.differences import StepDifference, holm, step_differences


class ProbedLayer(NamedTuple):
    """The probe of a property on one layer."""

    model: str
    probe: str
    property: str
    layer: str


@dataclass(frozen=True, slots=True)
class EmergenceDifference:
    """emergence_order.csv: by how many steps one property emerges before another, on the `n` images of both.

    `step` and `other_step` count from 0, see `summaries.emergence_step`. `difference` is the other's step less this
    one's, by the means over the images of both, `low` and `high` its interval, `p` two-sided, and `p_holm` adjusted for
    the other pairs of the same model and probe. All are empty where no image has both. `left_out` images lack one.
    """

    model: str
    probe: str
    property: str
    layer: str
    step: Step
    other_property: str
    other_layer: str
    other_step: Step
    fraction: float
    difference: int | None
    low: int | None
    high: int | None
    p: float | None
    p_holm: float | None
    n: int
    left_out: int


def compare_emergence(
    scores: pd.DataFrame, probed: Sequence[ProbedLayer], *, fraction: float = 0.95, seed: int = 0
) -> list[EmergenceDifference]:
    """Every pair of the properties of one model and probe that have a step of emergence, the earlier one first.

    The pairs of one model and probe are a family of Holm's adjustment. Nothing of a single step.

    Raises UserError as `emergence_step`, and for properties that were scored at different steps.
    """
    found: list[EmergenceDifference] = []
    for model, probe in dict.fromkeys((one.model, one.probe) for one in probed):
        own = [one for one in probed if (one.model, one.probe) == (model, probe)]
        found += _pairs_of(scores, own, fraction, seed)
    return found


class _Emerging(NamedTuple):
    """A property's probe, its step of emergence, and its scores above their level."""

    probed: ProbedLayer
    step: int
    curve: LevelledScores


def _pairs_of(
    scores: pd.DataFrame, probed: Sequence[ProbedLayer], fraction: float, seed: int
) -> list[EmergenceDifference]:
    emerging = []
    for one in probed:
        options = {"fraction": fraction, "model": one.model, "probe": one.probe}
        step = emergence_step(scores, one.layer, one.property, **options).step
        curve = levelled(scores, one.layer, one.property, **options)
        if step is not None and len(curve.steps) > 1:
            emerging.append(_Emerging(one, step, curve))
    emerging.sort(key=lambda one: one.step)
    pairs = list(combinations(range(len(emerging)), 2))
    if not pairs:
        return []
    above, images = _on_same_images([one.curve for one in emerging])
    found = step_differences(above, pairs, seed=seed)
    rows = [
        _row(emerging[first], emerging[second], difference, fraction, images)
        for (first, second), difference in zip(pairs, found, strict=True)
    ]
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows]


def _row(
    first: _Emerging, second: _Emerging, difference: StepDifference | None, fraction: float, images: int
) -> EmergenceDifference:
    n = difference.n if difference else 0
    return EmergenceDifference(
        *first.probed,
        first.step,
        *(second.probed.property, second.probed.layer, second.step, fraction),
        difference=difference.difference if difference else None,
        low=difference.low if difference else None,
        high=difference.high if difference else None,
        p=difference.p if difference else None,
        p_holm=None,
        n=n,
        left_out=images - n,
    )


def _on_same_images(curves: Sequence[LevelledScores]) -> tuple[np.ndarray, int]:
    """Scores above their level, [curves, steps, images], NaN where an image is missing; and the number of images."""
    steps = curves[0].steps
    if any(curve.steps != steps for curve in curves):
        raise UserError("the scores of different properties are of different steps, so their order cannot be told")
    images = list(dict.fromkeys(name for curve in curves for name in curve.images))
    column = {name: number for number, name in enumerate(images)}
    above = np.full((len(curves), len(steps), len(images)), np.nan)
    for row, curve in zip(above, curves, strict=True):
        row[:, [column[name] for name in curve.images]] = curve.above
    return above, len(images)

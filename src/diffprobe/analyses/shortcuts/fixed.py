"""From which step on the outcome is fixed, beside the step by which a probe could read it, paired over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from diffprobe.analyses.shortcuts.agreement import SAME_CLASS
from diffprobe.analyses.shortcuts.study import UNRELATED
from diffprobe.analyses.shortcuts.ways import EMPTY, OTHER
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import EmergenceStep, levelled
from diffprobe.properties.metrics import metric_named
from diffprobe.statistics.differences import holm, step_differences, steps_reaching
from diffprobe.statistics.intervals import mean_intervals, skewed_t

if TYPE_CHECKING:
    from diffprobe.report.choices import LayerChoice

# In the column `shortcut`: the one that changes an image most, of all and of those that keep the prompt
ANY, ANY_SAME_PROMPT = "any", "any_same_prompt"


@dataclass(frozen=True, slots=True)
class AgreementSummary:
    """Mean agreement with the whole run over `n` images, with its interval. `full_steps` None of unrelated pictures."""

    model: str
    shortcut: str
    full_steps: int | None
    property: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


def summarise_agreement(agreement: pd.DataFrame, model: str, sampling_steps: int) -> list[AgreementSummary]:
    """Of `ShortcutResults.agreement`, in its order; no interval goes beyond the range of its metric.

    After all of `sampling_steps` the whole run is compared with itself, which leaves nothing open.
    """
    keys = ["shortcut", "full_steps", "property", "metric"]
    rows = []
    for key, group in agreement.groupby(keys, sort=False, dropna=False):
        shortcut, full_steps, name, metric = cast(tuple[str, Any, str, str], key)
        values, known = group["value"].to_numpy(float), metric_named(metric)
        taken = None if pd.isna(full_steps) else int(full_steps)
        mean, low, high = _mean_with_ends(values, share=metric == SAME_CLASS and taken != sampling_steps)
        if low is not None and high is not None:
            low, high = max(low, known.low), min(high, known.high)
        n = int(np.isfinite(values).sum())
        rows.append(AgreementSummary(model, shortcut, taken, name, metric, mean, low, high, n))
    return rows


def _mean_with_ends(values: np.ndarray, share: bool) -> tuple[float | None, float | None, float | None]:
    """Pictures that are all equal make a Dice of 1 in every image, which is no share of images."""
    if np.isnan(values).all():
        return None, None, None
    if share:
        mean, low, high = (float(each[0]) for each in mean_intervals(values[None])[:3])
    else:
        mean = float(np.nanmean(values))
        low, high = (float(end) for end in skewed_t(mean, values - mean))
    return (mean, None, None) if np.isnan(low) else (mean, low, high)


@dataclass(frozen=True, slots=True)
class FixedStep:
    """After how many full steps a property of the final picture is fixed, and after how many a probe could read it.

    `fixed`: from then on, mean over images, a shortcut changes it by less than `tolerance`, in units of the metric. Of
    an image counts the largest change by a shortcut that is begun then or later; of 'any' that of all shortcuts.
    `probe`: the probe's step of emergence, which takes as many evaluations. `later` is `fixed` less `probe` on the same
    `n` images, with p, and p adjusted by Holm for all rows. Ends of intervals are None where there are too few images,
    and a step is where it is not reached within the steps.
    """

    model: str
    layer: str
    property: str
    metric: str
    shortcut: str
    tolerance: float
    fixed: int | None
    fixed_low: int | None
    fixed_high: int | None
    probe: int | None
    probe_low: int | None
    probe_high: int | None
    later: int | None
    later_low: int | None
    later_high: int | None
    p: float | None
    p_holm: float | None
    n: int


def fixed_steps(
    agreement: pd.DataFrame,
    scores: pd.DataFrame,
    choices: Sequence[LayerChoice],
    *,
    tolerance: float,
    seed: int = 0,
) -> list[FixedStep]:
    """One row for each property and shortcut, one for whatever shortcut, and one for whatever one keeps the prompt.

    Args:
        agreement: of `ShortcutResults`.
        scores: of the probes.
        choices: the layer of each property.
        tolerance: of 1; of an error, of its range.
    """
    rows = []
    for choice in choices:
        images, changes = _changes(select(agreement, property=choice.property))
        grid = list(changes[ANY].index)
        probe = _probe_curve(scores, choice, images, grid)
        for shortcut, change in changes.items():
            above = tolerance - _on_all_steps(_largest_from_here(change.to_numpy()), grid)
            rows.append(_fixed(choice, shortcut, above, probe, tolerance, seed))
    adjusted = iter(holm([row.p for row in rows if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in rows]


def _changes(agreement: pd.DataFrame) -> tuple[list[str], dict[str, pd.DataFrame]]:
    """The images, and of whatever shortcut and of each how far the property is off, [full steps, images]: 0 where it is
    as in the whole run, NaN where a shortcut cannot be begun."""
    agreement = agreement[agreement["shortcut"] != UNRELATED]
    metric = metric_named(agreement["metric"].iloc[0])
    best, scale = (metric.high, metric.high) if metric.higher_is_better else (0.0, metric.high)
    found: dict[str, pd.DataFrame] = {}
    images, grid = agreement["image"].unique(), sorted(agreement["full_steps"].unique())
    for shortcut, group in agreement.groupby("shortcut", sort=False):
        values = group.pivot(index="full_steps", columns="image", values="value").reindex(index=grid, columns=images)
        found[str(shortcut)] = metric.sign * (best - values) / scale
    groups = {ANY: list(found), ANY_SAME_PROMPT: [way for way in found if way not in (EMPTY, OTHER)]}
    if len(groups[ANY_SAME_PROMPT]) in (0, len(found)):
        del groups[ANY_SAME_PROMPT]
    largest = {
        name: pd.DataFrame(np.fmax.reduce([found[way].to_numpy() for way in ways]), index=grid, columns=images)
        for name, ways in groups.items()
    }
    return list(images), {**largest, **found}


def _largest_from_here(changes: np.ndarray) -> np.ndarray:
    """At each of the steps [steps, images] the largest change there or later; NaN stays where there is none."""
    largest = np.fmax.accumulate(changes[::-1], axis=0)[::-1]
    return np.where(np.isnan(changes), np.nan, largest)


def _on_all_steps(values: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Values [grid, images] at their places among all numbers of full steps, so that a place is a number; else NaN."""
    whole = np.full((grid[-1] + 1, values.shape[1]), np.nan)
    whole[list(grid)] = values
    return whole


def _emergence(choice: LayerChoice) -> EmergenceStep:
    assert choice.emergence is not None  # the noise of generated images falls
    return choice.emergence


def _probe_curve(
    scores: pd.DataFrame, choice: LayerChoice, images: Sequence[str], grid: Sequence[int]
) -> np.ndarray | None:
    """By how much each image's score is above its level after as many evaluations; None where none emerges."""
    if _emergence(choice).step is None:
        return None
    options = {"fraction": choice.fraction, "model": choice.model, "probe": choice.probe}
    curve = levelled(scores, choice.best, choice.property, **options)
    own = pd.DataFrame(curve.above, index=[step + 1 for step in curve.steps], columns=curve.images)
    return _on_all_steps(own.reindex(index=list(grid), columns=list(images)).to_numpy(), grid)


def _fixed(
    choice: LayerChoice, shortcut: str, above: np.ndarray, probe: np.ndarray | None, tolerance: float, seed: int
) -> FixedStep:
    found, beyond = steps_reaching(above), len(above)
    difference = None if probe is None else step_differences(np.stack([probe, above]), [(0, 1)], seed=seed)[0]
    emergence = _emergence(choice)
    bounded = found.low is not None and emergence.low is not None
    metric = metric_named(choice.metric)
    fixed, fixed_low, fixed_high = (
        None if place in (None, beyond) else place for place in (found.first, found.low, found.high)
    )
    probe_step, probe_low, probe_high = (
        None if step is None else step + 1 for step in (emergence.step, emergence.low, emergence.high)
    )
    return FixedStep(
        model=choice.model,
        layer=choice.best,
        property=choice.property,
        metric=choice.metric,
        shortcut=shortcut,
        tolerance=tolerance * metric.high,
        fixed=fixed,
        fixed_low=fixed_low,
        fixed_high=fixed_high,
        probe=probe_step,
        probe_low=probe_low,
        probe_high=probe_high,
        later=difference.difference if difference else None,
        later_low=difference.low if difference and bounded else None,
        later_high=difference.high if difference and bounded else None,
        p=difference.p if difference else None,
        p_holm=None,
        n=difference.n if difference else int(np.isfinite(above).sum(1).max()),
    )

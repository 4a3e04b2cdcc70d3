"""Paired comparisons: two keys of the scores that share images, held against each other image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP, Step
from diffprobe.probes.properties import property_named
from diffprobe.probes.score_table import by_image, select
from diffprobe.probes.summaries import best_layer
from diffprobe.statistics.differences import holm, paired_differences
from diffprobe.statistics.intervals import is_share


@dataclass(frozen=True, slots=True)
class ScoreKey:
    """Whose scores: a probe of one model on one layer at one step, or a control's. `step` counts from 0."""

    model: str
    layer: str
    step: int
    probe: str
    control: str = "none"


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """What `family` asks: by how much a key's score is above another's, on the same images.

    `difference` is the mean of the first's score minus the `other_` one's over the `n` images where both are defined
    (`left_out` are not), `low` and `high` its interval; for `rmse` a negative difference is the better one. `p` is
    two-sided and `p_holm` adjusted for the other comparisons of the family. `low` and `high` are None where the images
    are too few, all where `n` is 0.
    """

    family: str
    property: str
    metric: str
    split: str
    model: str
    layer: str
    step: Step
    probe: str
    control: str
    other_model: str
    other_layer: str
    other_step: Step
    other_probe: str
    other_control: str
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    n: int
    left_out: int


ScoresByImage = dict[
    ScoreKey, np.ndarray
]  # [2, images]: scores, NaN where undefined, and 1 where there is a row, else 0


def compare(
    scores: pd.DataFrame,
    pairs: Sequence[tuple[ScoreKey, ScoreKey]],
    *,
    property: str,
    metric: str,
    family: str,
    split: str = "test",
    level: float = 0.95,
    seed: int = 0,
) -> list[ScoreDifference]:
    """One comparison a pair, in their order; the pairs are the family that Holm's adjustment is for.

    Intervals and p are those of `statistics.paired_differences`: a claim needs sign flips and a t that is corrected for
    skewness to agree. With five images or less no p is below 0.05.

    Args:
        seed: of the random flips, where there are more than 12 images.

    Raises UserError for a key without scores, and for an image with two scores under one key.
    """
    values = _values(scores, property, metric, split)
    what = (family, property, metric, split)
    return _compare(values, pairs, what, level=level, seed=seed)


def compare_run(
    scores: pd.DataFrame,
    summaries: pd.DataFrame,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> list[ScoreDifference]:
    """The comparisons of a run, or of several runs' rows together, by the headline metric of each property on test.

    For every model, probe and property, at the layer with the best validation score at the last step, a family each:
    'control': against every control; 'layer': against every other layer; 'step': against every earlier step (the
    earlier step is the one subtracted). With several probes or models, also 'probe' and 'model': each against each of
    the others, at its own best layer and last step.

    Raises UserError as `compare`, and when no layer can be chosen.
    """
    found: list[ScoreDifference] = []
    for name in summaries["property"].unique():
        metric = property_named(name).headline
        values = _values(scores, name, metric, "test")
        best: list[ScoreKey] = []
        families: dict[tuple[str, str, str], list[tuple[ScoreKey, ScoreKey]]] = {}
        kinds = select(summaries, property=name)[["model", "probe"]].drop_duplicates()
        for model, probe in kinds.itertuples(index=False):
            mine = [key for key in values if (key.model, key.probe) == (model, probe)]
            layer = best_layer(summaries, name, model=model, probe=probe)
            at = [key for key in mine if key.layer == layer and key.control == "none"]
            best.append(max(at, key=lambda key: key.step))
            for family, others in _others(mine, best[-1]).items():
                families[family, model, probe] = [(best[-1], other) for other in others]
        families |= _between(best)
        for (family, *_), pairs in families.items():
            what = (family, name, metric, "test")
            found += _compare(values, pairs, what, level=level, seed=seed)
    return found


def control_keys(keys: Iterable[ScoreKey], real: ScoreKey) -> dict[str, ScoreKey]:
    """What stands against a key: of each control the key at the same layer and step, else its only layer's.

    A control without steps is taken as it is. Only keys of the same model and probe count.
    """
    mine: dict[str, list[ScoreKey]] = {}
    for key in keys:
        if key.control != "none" and (key.model, key.probe) == (real.model, real.probe):
            mine.setdefault(key.control, []).append(key)
    found = {}
    for control, candidates in mine.items():
        layers = {key.layer for key in candidates}
        layer = real.layer if real.layer in layers else next(iter(layers)) if len(layers) == 1 else None
        at = [key for key in candidates if key.layer == layer and key.step in (real.step, NO_STEP)]
        if at:
            found[control] = at[0]
    return found


def _others(keys: Sequence[ScoreKey], best: ScoreKey) -> dict[str, list[ScoreKey]]:
    """What a best layer at its last step is compared with, by family; empty families are left out."""
    real = [key for key in keys if key.control == "none"]
    families = {
        "control": list(control_keys(keys, best).values()),
        "layer": [key for key in real if key.step == best.step and key.layer != best.layer],
        "step": sorted((key for key in real if key.layer == best.layer and key != best), key=lambda key: key.step),
    }
    return {family: others for family, others in families.items() if others}


def _between(best: Sequence[ScoreKey]) -> dict[tuple[str, str, str], list[tuple[ScoreKey, ScoreKey]]]:
    """Pairs of probes of one model, and of models with one probe."""
    families: dict[tuple[str, str, str], list[tuple[ScoreKey, ScoreKey]]] = {}
    for first, second in combinations(best, 2):
        if first.model == second.model:
            families.setdefault(("probe", first.model, ""), []).append((first, second))
        elif first.probe == second.probe:
            families.setdefault(("model", "", first.probe), []).append((first, second))
    return families


def _values(scores: pd.DataFrame, property: str, metric: str, split: str) -> ScoresByImage:
    found = by_image(
        select(scores, property=property, metric=metric, split=split), ["model", "layer", "step", "probe", "control"]
    )
    keys = found.keys.assign(step=found.keys["step"].fillna(NO_STEP))
    both = np.stack([found.values, found.there], 1)
    return {ScoreKey(*key): values for key, values in zip(keys.itertuples(index=False), both, strict=True)}


def _compare(
    values: ScoresByImage,
    pairs: Sequence[tuple[ScoreKey, ScoreKey]],
    what: tuple[str, str, str, str],
    *,
    level: float,
    seed: int,
) -> list[ScoreDifference]:
    """`compare` on values that have been gathered; what: family, property, metric, split."""
    pairings = [_differences(values, *pair) for pair in pairs]
    figures = _statistics(pairings, level, seed)
    found: list[ScoreDifference] = []
    for pair, pairing, numbers in zip(pairs, pairings, figures, strict=True):
        cells: tuple = (
            *what,
            *astuple(pair[0]),
            *astuple(pair[1]),
            *numbers,
            None,
            len(pairing.values),
            pairing.left_out,
        )
        found.append(ScoreDifference(*cells))
    adjusted = iter(holm([row.p for row in found if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in found]


@dataclass(frozen=True, slots=True)
class _Pairing:
    """Differences [images] where both scores are defined, how many are not, and whether all scores are 0 or 1."""

    values: np.ndarray
    left_out: int
    share: bool


def _differences(values: ScoresByImage, key: ScoreKey, other: ScoreKey) -> _Pairing:
    for wanted in (key, other):
        if wanted not in values:
            raise UserError(f"there are no scores of {wanted.layer} at step {wanted.step + 1}: {wanted}")
    (first, has_first), (second, has_second) = values[key], values[other]
    defined = ~np.isnan(first - second)
    kept = np.stack([first, second])[:, defined]
    left_out = int(((has_first + has_second > 0) & ~defined).sum())
    return _Pairing(kept[0] - kept[1], left_out, bool(is_share(kept).all()))


def _statistics(pairings: Sequence[_Pairing], level: float, seed: int) -> list[tuple[float | None, ...]]:
    """(difference, low, high, p) of each; those of equally many images are computed together."""
    found: list[tuple[float | None, ...]] = [(None,) * 4] * len(pairings)
    by_number: dict[int, list[int]] = {}
    for place, pairing in enumerate(pairings):
        by_number.setdefault(len(pairing.values), []).append(place)
    for number, places in by_number.items():
        if number == 0:
            continue
        shares = np.array([pairings[place].share for place in places])
        paired = paired_differences(
            np.array([pairings[place].values for place in places]), shares, level=level, seed=seed
        )
        columns = (paired.difference, paired.low, paired.high, paired.p)
        for place, row in zip(places, zip(*(column.tolist() for column in columns), strict=True), strict=True):
            found[place] = tuple(None if np.isnan(cell) else cell for cell in row)
    return found

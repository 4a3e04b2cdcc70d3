"""Paired differences of scores: two keys of the score table, compared on the images that they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP, Step
from diffprobe.probes.score_table import by_image, select
from diffprobe.probes.summaries import best_layer, headline_metric
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
    """comparisons.csv: by how much a key's score is above another's, on the same images.

    `difference` is the mean of the first's score minus the `other_` one's over the `n` images where both are defined
    (`left_out` are not), `low` and `high` its interval; of errors a negative difference is the better one. `p` is
    two-sided and `p_holm` adjusted for the other differences of the `family`. `low` and `high` are None where the
    images are too few, all where `n` is 0.
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


ScoresByImage = dict[ScoreKey, np.ndarray]
"""[2, images]: scores, NaN where undefined, and 1 where there is a row, else 0."""


def compare(
    scores: pd.DataFrame,
    pairs: Sequence[tuple[ScoreKey, ScoreKey]],
    *,
    property: str,
    metric: str,
    family: str,
    seed: int = 0,
) -> list[ScoreDifference]:
    """The difference of each pair on test images, in their order; the pairs are the family of Holm's adjustment.

    Intervals and p are those of `paired_differences`; `seed` is of its random flips.

    Raises UserError for a key without scores, and for an image with two scores under one key.
    """
    return _compare(_values(scores, property, metric), pairs, (family, property, metric), seed)


def compare_run(scores: pd.DataFrame, summaries: pd.DataFrame, *, seed: int = 0) -> list[ScoreDifference]:
    """The differences of a run, or of several runs' rows together, by the headline metric of each property on test.

    For every model, probe and property, at the layer with the best validation score at the last step, a family each:
    'control': against every control; 'layer': against every other layer; 'step': against every earlier step (the
    earlier step is the one subtracted). With several probes or models, also 'probe' and 'model': each against each of
    the others, at its own best layer and last step.

    Raises UserError as `compare`, and when no layer can be chosen.
    """
    found: list[ScoreDifference] = []
    for name in summaries["property"].unique():
        metric = headline_metric(summaries, name).name
        values = _values(scores, name, metric)
        real = [key for key in values if key.control == "none"]
        chosen: list[ScoreKey] = []
        families: dict[tuple[str, str, str], list[tuple[ScoreKey, ScoreKey]]] = {}
        kinds = select(summaries, property=name)[["model", "probe"]].drop_duplicates()
        for model, probe in kinds.itertuples(index=False):
            layer = best_layer(summaries, name, model=model, probe=probe)
            own = [key for key in real if (key.model, key.probe) == (model, probe)]
            steps = sorted((key for key in own if key.layer == layer), key=lambda key: key.step)
            best = steps.pop()
            chosen.append(best)
            others = {
                "control": control_keys(values, best).values(),
                "layer": [key for key in own if key.step == best.step and key.layer != layer],
                "step": steps,
            }
            families |= {(kind, model, probe): [(best, key) for key in keys] for kind, keys in others.items() if keys}
        for first, second in combinations(chosen, 2):
            if first.model == second.model:
                families.setdefault(("probe", first.model, ""), []).append((first, second))
            elif first.probe == second.probe:
                families.setdefault(("model", "", first.probe), []).append((first, second))
        for (family, *_), pairs in families.items():
            found += _compare(values, pairs, (family, name, metric), seed)
    return found


def control_keys(keys: Iterable[ScoreKey], real: ScoreKey) -> dict[str, ScoreKey]:
    """Of each control the key to compare a real one with: at the same layer and step, else at the control's only layer.

    A control without steps is taken as it is. Only keys of the same model and probe count.
    """
    own: dict[str, list[ScoreKey]] = {}
    for key in keys:
        if key.control != "none" and (key.model, key.probe) == (real.model, real.probe):
            own.setdefault(key.control, []).append(key)
    found = {}
    for control, candidates in own.items():
        layers = {key.layer for key in candidates}
        layer = real.layer if real.layer in layers else next(iter(layers)) if len(layers) == 1 else None
        at = [key for key in candidates if key.layer == layer and key.step in (real.step, NO_STEP)]
        if at:
            found[control] = at[0]
    return found


def _values(scores: pd.DataFrame, property: str, metric: str) -> ScoresByImage:
    found = by_image(
        select(scores, property=property, metric=metric, split="test"), ["model", "layer", "step", "probe", "control"]
    )
    keys = found.keys.assign(step=found.keys["step"].fillna(NO_STEP))
    both = np.stack([found.values, found.there], 1)
    return {ScoreKey(*key): values for key, values in zip(keys.itertuples(index=False), both, strict=True)}


def _compare(
    values: ScoresByImage, pairs: Sequence[tuple[ScoreKey, ScoreKey]], what: tuple[str, str, str], seed: int
) -> list[ScoreDifference]:
    """`compare` on values by image; what: family, property, metric."""
    differences: list[np.ndarray] = []
    left_out: list[int] = []
    shares: list[bool] = []
    for pair in pairs:
        for wanted in pair:
            if wanted not in values:
                raise UserError(f"there are no scores of {wanted.layer} at step {wanted.step + 1}: {wanted}")
        (first, has_first), (second, has_second) = (values[key] for key in pair)
        defined = ~np.isnan(first - second)
        differences.append((first - second)[defined])
        left_out.append(int(((has_first + has_second > 0) & ~defined).sum()))
        shares.append(bool(is_share(np.stack([first, second])[:, defined]).all()))
    numbers = _statistics(differences, shares, seed)
    adjusted = iter(holm([p for *_, p in numbers if p is not None]))
    found: list[ScoreDifference] = []
    for (key, other), cells, own, missing in zip(pairs, numbers, differences, left_out, strict=True):
        p_holm = None if cells[-1] is None else next(adjusted)
        row: tuple = (*what, "test", *astuple(key), *astuple(other), *cells, p_holm, len(own), missing)
        found.append(ScoreDifference(*row))
    return found


def _statistics(differences: Sequence[np.ndarray], shares: Sequence[bool], seed: int) -> list[tuple[float | None, ...]]:
    """(difference, low, high, p) of each [images]; those of equally many images are computed together."""
    found: list[tuple[float | None, ...]] = [(None,) * 4] * len(differences)
    sizes = np.array([len(values) for values in differences])
    for size in set(sizes.tolist()) - {0}:
        places = np.flatnonzero(sizes == size).tolist()
        values, binary = np.stack([differences[place] for place in places]), np.array(shares)[places]
        rows = np.stack(paired_differences(values, binary, seed=seed), 1).tolist()
        for place, row in zip(places, rows, strict=True):
            found[place] = tuple(None if np.isnan(cell) else cell for cell in row)
    return found

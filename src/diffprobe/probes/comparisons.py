"""Paired comparisons: two keys of the scores that share images, held against each other image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from diffprobe.errors import UserError
from diffprobe.probes.properties import property_named
from diffprobe.probes.summaries import best_layer
from diffprobe.probes.tables import Score, Summary
from diffprobe.statistics import holm, resampling_counts
from diffprobe.tables import NO_STEP, Step, read_rows, write_rows


@dataclass(frozen=True, slots=True)
class Key:
    """Whose scores: a probe of one model on one layer at one step, or a control's. `step` counts from 0."""

    model: str
    layer: str
    step: int
    probe: str
    control: str = "none"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `family` asks: by how much a key's score is above another's, on the same images.

    `difference` is the mean of the first's score minus the `other_` one's over the `n` images where both are defined
    (`left_out` are not), `low` and `high` its bootstrap interval; for `rmse` a negative difference is the better one.
    `p` is two-sided and `p_holm` adjusted for the other comparisons of the family. All None where `n` is 0.
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


Values = dict[Key, dict[str, float]]  # score of each image; NaN where undefined


def write_comparisons(path: str | Path, rows: Sequence[Comparison]) -> None:
    """Write comparisons.csv, as `tables.write_rows`."""
    write_rows(path, Comparison, rows)


def read_comparisons(path: str | Path) -> list[Comparison]:
    """Read comparisons.csv. Raises UserError as `tables.read_rows`."""
    return read_rows(path, Comparison)


def compare(
    scores: Iterable[Score],
    pairs: Sequence[tuple[Key, Key]],
    *,
    property: str,
    metric: str,
    family: str,
    split: str = "test",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """One comparison a pair, in their order; the pairs are the family that Holm's adjustment is for.

    Images are resampled, with their pair of scores (Efron and Tibshirani 1993, chapters 13 and 16): the interval is
    the percentile one, and p = (1 + #{|d* - d| >= |d|}) / (resamples + 1), where d* - d, the resampled difference
    less the observed one, is what chance gives when there is no difference (Davison and Hinkley 1997, section 4.4).
    So no p is below 1 / (resamples + 1).

    Raises UserError for a key without scores, and for an image with two scores under one key.
    """
    values = _values(scores, property, metric, split)
    what = (family, property, metric, split)
    return _compare(values, pairs, what, resamples=resamples, level=level, seed=seed)


def compare_run(
    scores: Sequence[Score],
    summaries: Sequence[Summary],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """The comparisons of a run, or of several runs' rows together, by the headline metric of each property on test.

    For every model, probe and property, at the layer with the best validation score at the last step, a family each:
    'control': against every control; 'layer': against every other layer; 'step': against every earlier step (the
    earlier step is the one subtracted). With several probes or models, also 'probe' and 'model': each against each of
    the others, at its own best layer and last step.

    Raises UserError as `compare`, and when no layer can be chosen.
    """
    found: list[Comparison] = []
    for name in dict.fromkeys(row.property for row in summaries):
        metric = property_named(name).headline
        values = _values(scores, name, metric, "test")
        best: list[Key] = []
        families: dict[tuple[str, str, str], list[tuple[Key, Key]]] = {}
        for model, probe in dict.fromkeys((row.model, row.probe) for row in summaries if row.property == name):
            mine = [key for key in values if (key.model, key.probe) == (model, probe)]
            layer = best_layer(summaries, name, model=model, probe=probe)
            at = [key for key in mine if key.layer == layer and key.control == "none"]
            best.append(max(at, key=lambda key: key.step))
            for family, others in _others(mine, best[-1]).items():
                families[family, model, probe] = [(best[-1], other) for other in others]
        families |= _between(best)
        for (family, *_), pairs in families.items():
            what = (family, name, metric, "test")
            found += _compare(values, pairs, what, resamples=resamples, level=level, seed=seed)
    return found


def control_keys(keys: Iterable[Key], real: Key) -> dict[str, Key]:
    """What stands against a key: of each control the key at the same layer and step, else its only layer's.

    A control without steps is taken as it is. Only keys of the same model and probe count.
    """
    mine: dict[str, list[Key]] = {}
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


def _others(keys: Sequence[Key], best: Key) -> dict[str, list[Key]]:
    """What a best layer at its last step is compared with, by family; empty families are left out."""
    real = [key for key in keys if key.control == "none"]
    families = {
        "control": list(control_keys(keys, best).values()),
        "layer": [key for key in real if key.step == best.step and key.layer != best.layer],
        "step": sorted((key for key in real if key.layer == best.layer and key != best), key=lambda key: key.step),
    }
    return {family: others for family, others in families.items() if others}


def _between(best: Sequence[Key]) -> dict[tuple[str, str, str], list[tuple[Key, Key]]]:
    """Pairs of probes of one model, and of models with one probe."""
    families: dict[tuple[str, str, str], list[tuple[Key, Key]]] = {}
    for first, second in combinations(best, 2):
        if first.model == second.model:
            families.setdefault(("probe", first.model, ""), []).append((first, second))
        elif first.probe == second.probe:
            families.setdefault(("model", "", first.probe), []).append((first, second))
    return families


def _values(scores: Iterable[Score], property: str, metric: str, split: str) -> Values:
    values: Values = {}
    for row in scores:
        if (row.property, row.metric, row.split) == (property, metric, split):
            images = values.setdefault(Key(row.model, row.layer, row.step, row.probe, row.control), {})
            if row.image in images:
                raise UserError(
                    f"two {metric} scores of image {row.image!r} for {property} at {row.layer}, step {row.step + 1} "
                    f"({row.model}, {row.probe}, control {row.control}): these are rows of several runs of one kind; "
                    "compare one of them at a time"
                )
            images[row.image] = np.nan if row.value is None else row.value
    return values


def _compare(
    values: Values,
    pairs: Sequence[tuple[Key, Key]],
    what: tuple[str, str, str, str],
    *,
    resamples: int,
    level: float,
    seed: int,
) -> list[Comparison]:
    """`compare` on values that have been gathered; what: family, property, metric, split."""
    found: list[Comparison] = []
    drawn: dict[int, np.ndarray] = {}  # comparisons of equally many images share their resamples
    for pair in pairs:
        differences, left_out = _differences(values, *pair)
        n = len(differences)
        if n and n not in drawn:
            drawn[n] = resampling_counts(n, resamples, seed) / n
        figures = _tested(differences, drawn[n], level) if n else (None,) * 4
        cells: tuple = (*what, *astuple(pair[0]), *astuple(pair[1]), *figures, None, n, left_out)
        found.append(Comparison(*cells))
    adjusted = iter(holm([row.p for row in found if row.p is not None]))
    return [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in found]


def _differences(values: Values, key: Key, other: Key) -> tuple[np.ndarray, int]:
    """Differences of the images that are defined under both keys, and how many of all are not."""
    for wanted in (key, other):
        if wanted not in values:
            raise UserError(f"there are no scores of {wanted.layer} at step {wanted.step + 1}: {wanted}")
    first, second = values[key], values[other]
    images = dict.fromkeys([*first, *second])
    differences = np.array([first.get(image, np.nan) - second.get(image, np.nan) for image in images])
    defined = ~np.isnan(differences)
    return differences[defined], int((~defined).sum())


def _tested(differences: np.ndarray, weights: np.ndarray, level: float) -> tuple[float, float, float, float]:
    """(difference, low, high, p) of differences [images], with the weights [resamples, images] of the resamples."""
    difference = differences.mean()
    resampled = weights @ differences
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    # A hair of tolerance: resamples whose difference is the same number up to rounding count as ties
    extreme = np.abs(resampled - difference) >= np.abs(difference) * (1 - 1e-12)
    return float(difference), float(low), float(high), float((1 + extreme.sum()) / (1 + len(weights)))

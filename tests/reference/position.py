"""The control of pixel position from all label maps at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffprobe.files import NO_STEP
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.scoring import THRESHOLDS, Threshold, target_maps
from diffprobe.probes.splits import Split
from diffprobe.properties import property_named
from diffprobe.properties.binary import dice
from diffprobe.properties.tokens import pool_target


def position_scores(
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    *,
    names: Sequence[str],
    model: str,
    threshold: Threshold = "validation",
    probe: str = "linear",
) -> list[ScoreBlock]:
    """Scores of the mean training map on every validation and test image."""
    found: list[ScoreBlock] = []
    fixed = None if threshold == "validation" else threshold
    for name in properties:
        item = property_named(name)
        labels = target_maps(targets, item, names)
        standardisation = item.standardisation(labels[split.train])
        target = standardisation.apply(labels)
        prediction = target[split.train].mean(0)
        grid = (prediction.shape[0], prediction.shape[1])
        maps = prediction.expand(1, 1, *grid)
        cut = [0.5] if fixed is None else [fixed]
        if item.binary and fixed is None:
            pooled = pool_target(target[split.validation], grid)
            cut = [max(THRESHOLDS, key=lambda value: float(dice(maps > value, pooled).mean()))]
        for part in ("validation", "test"):
            rows = split.rows(part)
            prepared = item.prepared(labels[rows], standardisation, [grid])[grid]
            keys = (model, "position", name, probe, "position", part)
            images = [names[row] for row in rows]
            for metric, values in item.scores(maps.expand(1, len(rows), *grid), prepared, cut).items():
                scores = values.expand(1, len(rows)).double().numpy()
                found.append(ScoreBlock(*keys, metric, [(NO_STEP, None)], images, scores))
    return found

"""The control of pixel position from all label maps at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from diffprobe.files import NO_STEP
from diffprobe.probes.properties import property_named
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.scoring import (
    THRESHOLDS,
    Threshold,
    dice,
    pool_target,
    pooled_targets,
    score_maps,
    target_maps,
)
from diffprobe.probes.splits import Split


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
        target = target_maps(targets, name, names)
        target = item.standardisation(target[split.train]).apply(target)
        prediction = target[split.train].mean(0)
        grid = (prediction.shape[0], prediction.shape[1])
        maps = prediction.expand(1, 1, *grid)
        cut = [0.5] if fixed is None else [fixed]
        if item.binary and fixed is None:
            pooled = pool_target(target[split.validation], grid)
            cut = [max(THRESHOLDS, key=lambda value: float(dice(maps > value, pooled).mean()))]
        for part in ("validation", "test"):
            rows = split.rows(part)
            pooled = pooled_targets(item, target[rows], [grid])[grid]
            keys = (model, "position", name, probe, "position", part)
            images = [names[row] for row in rows]
            for metric, values in score_maps(item, maps, pooled, cut).items():
                scores = values.expand(1, len(rows)).double().numpy()
                found.append(ScoreBlock(*keys, metric, [(NO_STEP, None)], images, scores))
    return found

"""Does an object stay itself when its image is changed, or noised and denoised again? Beside other objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.distances import paired_distances
from diffprobe.prototypes.drift import Pairs, drift_rows
from diffprobe.prototypes.separation import Resampling
from diffprobe.prototypes.set_intervals import set_intervals
from diffprobe.prototypes.set_statistics import set_statistics
from diffprobe.prototypes.sets import split_pairs
from diffprobe.prototypes.tables import DriftRow
from diffprobe.studies.separation import Matrix, Measuring, all_distances


@dataclass(frozen=True)
class Changed:
    """The same objects and inputs after a change. `step` is the one that is held against the unchanged ones."""

    change: str
    strength: float
    prototypes: Prototypes
    step: int


def study_drift(
    unchanged: Prototypes,
    changed: Sequence[Changed],
    model: str,
    measuring: Measuring,
    resampling: Resampling,
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> list[DriftRow]:
    """For every input, measure, change and strength: an object against its changed self, beside the four sets of pairs
    of unchanged objects. Objects that a change pushes out of their picture do not count there.

    Args:
        unchanged: at one step.

    Raises:
        UserError: fewer than two objects, or a measure that a prototype has no distance by.
    """
    rows = []
    for matrix, distances in all_distances(unchanged, model, measuring):
        sets = _sets(matrix, distances, resampling)
        group = next(group for group in unchanged.inputs if group.name == matrix.where.layer)
        for each in changed:
            after = each.prototypes.matrix(group, each.step)[matrix.rows]
            there = after.isfinite().all(1)
            own = paired_distances(
                matrix.values[there],
                after[there],
                matrix.where.measure,
                precision=measuring.precision,
                budget=measuring.budget,
            ).numpy()
            rows += drift_rows(matrix.where, each.change, each.strength, own, matrix.images[there.numpy()], sets)
        tell(f"{matrix.where.layer}, {matrix.where.measure}: {len(matrix.rows)} objects, {len(changed)} changes")
    return rows


def _sets(matrix: Matrix, distances: Tensor, resampling: Resampling) -> dict[str, Pairs]:
    values = split_pairs(distances, matrix.classes, matrix.images)
    intervals = set_intervals(
        distances, matrix.classes, matrix.images, parts=resampling.resamples, seed=resampling.seed
    )
    return {name: Pairs(of_set, intervals.means[name], set_statistics(of_set).std) for name, of_set in values.items()}

"""Prototypes of one input at one step as a matrix, and the distances between its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from diffprobe.activations.activations import LayerGroup
from diffprobe.errors import UserError
from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.distances import MEASURES, distance_matrix
from diffprobe.prototypes.separation import DistanceKey
from diffprobe.ranges import Choice, Items, Number


@dataclass(frozen=True)
class DistanceConfig:
    """Which distances are taken, and how: precision of the products, and bytes of working memory."""

    names: Annotated[Sequence[Annotated[str, Choice(*MEASURES)]], Items(1)]
    precision: Annotated[str, Choice("float32", "float64")] = "float32"
    budget_mb: Annotated[int, Number(1, 1_000_000)] = 512

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return getattr(torch, self.precision)

    @property
    def budget(self) -> int:
        """Bytes of working memory."""
        return self.budget_mb * 2**20


@dataclass(frozen=True)
class PrototypeMatrix:
    """The prototypes of the objects that are there at one input and step.

    Attributes:
        rows: which objects, [n].
        values: [n, channels].
        classes, images: [n], integers.
    """

    key: DistanceKey
    rows: np.ndarray
    values: Tensor
    classes: np.ndarray
    images: np.ndarray


def matrices(prototypes: Prototypes, model: str) -> Iterator[PrototypeMatrix]:
    """The prototypes of every input at every step, without the objects that have vanished there."""
    classes = np.unique([row.label for row in prototypes.objects], return_inverse=True)[1]
    for group in prototypes.inputs:
        for step in prototypes.steps:
            yield matrix_of(prototypes, group, step, model, classes)


def matrix_of(prototypes: Prototypes, group: LayerGroup, step: int, model: str, classes: np.ndarray) -> PrototypeMatrix:
    """The prototypes of one input at one step; classes: [objects], of all.

    Raises:
        UserError: fewer than two objects are left.
    """
    values = prototypes.matrix(group, step)
    rows = np.flatnonzero(values.isfinite().all(1).numpy())
    if len(rows) < 2:
        raise UserError(
            f"{len(rows)} of {len(values)} objects have a prototype at {group.name} "
            f"({group.layer.height}x{group.layer.width}): at least 2 are needed; use masks=soft, finer layers or more "
            "objects"
        )
    where = DistanceKey(model, group.name, step, prototypes.timestep(step), "")
    return PrototypeMatrix(where, rows, values[rows], classes[rows], prototypes.images[rows])


def all_distances(
    prototypes: Prototypes, model: str, distance_config: DistanceConfig
) -> Iterator[tuple[PrototypeMatrix, Tensor]]:
    """Every matrix with its distances [n, n] by every measure."""
    for matrix in matrices(prototypes, model):
        for measure in distance_config.names:
            at = DistanceKey(model, matrix.key.layer, matrix.key.step, matrix.key.timestep, measure)
            named = PrototypeMatrix(at, matrix.rows, matrix.values, matrix.classes, matrix.images)
            distances = distance_matrix(
                matrix.values, measure, precision=distance_config.dtype, budget=distance_config.budget
            )
            yield named, distances

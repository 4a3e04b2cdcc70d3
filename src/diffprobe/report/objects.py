"""The tables that every analysis of objects has: the objects, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence

from diffprobe.data.objects import Problem
from diffprobe.prototypes.collecting import Prototypes
from diffprobe.prototypes.tables import ObjectRow, VanishedRow
from diffprobe.report.report import Table

TOPICS = ("analysis", "model", "objects", "layers", "steps", "measure", "seed")


def object_tables(
    prototypes: Prototypes,
    problems: Sequence[Problem] = (),
    changed: Sequence[tuple[Prototypes, str, float | None]] = (),
) -> dict[str, Table]:
    """objects, vanished and problems.

    Args:
        prototypes: of the images as they are.
        problems: images and objects that were left out.
        changed: prototypes after a change of the images, its name and its strength.
    """
    vanished = [
        VanishedRow(name, height, width, change, strength)
        for found, change, strength in [(prototypes, "", None), *changed]
        for (height, width), names in found.vanished.items()
        for name in names
    ]
    return {
        "objects": Table.of(ObjectRow, prototypes.objects),
        "vanished": Table.of(VanishedRow, vanished, title="objects that no cell of a grid belongs to"),
        "problems": Table.of(Problem, problems, title="what was left out of the images"),
    }

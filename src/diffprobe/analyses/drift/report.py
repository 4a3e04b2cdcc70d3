"""What is reported of objects under changes of their image, under denoising, and in video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from diffprobe.analyses.drift.figures import drift_figures
from diffprobe.analyses.drift.findings import drift_lines
from diffprobe.prototypes.collecting import Prototypes, save_prototypes
from diffprobe.prototypes.tables import DriftRow
from diffprobe.report.objects import TOPICS, object_tables
from diffprobe.report.report import Report, Table

if TYPE_CHECKING:
    from diffprobe.analyses.drift.drift import ChangedPrototypes
    from diffprobe.data.objects import Problem


def report(
    title: str,
    rows: Sequence[DriftRow],
    prototypes: Prototypes,
    changed: Sequence[ChangedPrototypes] = (),
    problems: Sequence[Problem] = (),
) -> Report:
    """How far objects move, beside other pairs of objects.

    Args:
        prototypes: of the images as they are; `changed` has those after every change.
        problems: what was left out of the images.
    """
    changes = [(each.prototypes, each.change, each.strength) for each in changed]
    return Report(
        title=title,
        findings=drift_lines(rows),
        topics=TOPICS,
        tables={**object_tables(prototypes, problems, changes), "drift": Table.of(DriftRow, rows)},
        figures=drift_figures(rows),
        artifacts={"prototypes": partial(save_prototypes, prototypes)},
    )

"""Plain sentences about how well objects keep their identity when their image changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffprobe.analyses.drift.figures import CHANGES, FRAME_GAP, REIDENTIFICATION
from diffprobe.report.names import place_name
from diffprobe.report.numbers import interval, is_number, rounded
from diffprobe.statistics import well_covered

if TYPE_CHECKING:
    from diffprobe.prototypes.tables import DriftRow

WORDS = {
    "scsi": "two objects of one class in one image",
    "scdi": "two objects of one class in different images",
    "dcsi": "two objects of different classes in one image",
    "dcdi": "two objects of different classes in different images",
    "other": "two different instances",
}


def drift_lines(rows: Sequence[DriftRow]) -> list[str]:
    """For each model, layer, step and measure one sentence a change, and one on re-identification in video."""
    lines = []
    for key in dict.fromkeys((row.model, row.layer, row.step, row.measure) for row in rows):
        own = [row for row in rows if (row.model, row.layer, row.step, row.measure) == key]
        where = f"{place_name(own[0].layer, own[0].step)} ({own[0].model}, {own[0].measure})"
        for change in (*CHANGES, FRAME_GAP):
            line = _change_line([row for row in own if row.change == change])
            lines += [f"{where}: {line}"] if line else []
        line = _identity_line([row for row in own if row.set == REIDENTIFICATION])
        lines += [f"{where}: {line}"] if line else []
    return lines


def _change_line(rows: Sequence[DriftRow]) -> str:
    """Where objects drift furthest, and which pairs are then nearest to being confused with them."""
    drifts = [row for row in rows if row.set == "self" and is_number(row.mean)]
    against = [row for row in rows if is_number(row.auc) and row.set in WORDS]
    if not drifts:
        return ""
    worst = max(well_covered(drifts, lambda row: row.n), key=lambda row: row.mean or 0.0)
    what = CHANGES[worst.change][0] if worst.change in CHANGES else "gap between frames"
    line = f"{what}: objects move most at {worst.strength:g}, by {interval(worst.mean, worst.low, worst.high)}"
    if not against:
        return f"{line}."
    covered = {(row.change, row.strength) for row in well_covered(drifts, lambda row: row.n)}
    hardest = min(
        [row for row in against if (row.change, row.strength) in covered] or against, key=lambda row: row.auc or 0.0
    )
    return (
        f"{line}; an object stays nearer to itself than {WORDS[hardest.set]} are to each other in at least "
        f"{rounded(hardest.auc)} of cases (lowest at {hardest.strength:g})."
    )


def _identity_line(rows: Sequence[DriftRow]) -> str:
    measured = sorted((row for row in rows if is_number(row.mean)), key=lambda row: row.strength)
    if not measured:
        return ""
    first, last = measured[0], measured[-1]
    line = f"at a gap of {first.strength:g} between frames the nearest instance is the same one in {_accuracy(first)}"
    return f"{line} of cases." if first is last else f"{line} of cases, at {last.strength:g} in {_accuracy(last)}."


def _accuracy(row: DriftRow) -> str:
    return interval(row.mean, row.low, row.high)

"""The curves of a classification as scalars over the denoising step, for trackers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffprobe.report.results import STEP

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary


def class_scalars(summaries: Sequence[Summary]) -> list[dict[str, float]]:
    """One row a step: 'denoising_step' (from 1) and 'class/<metric>' with its '_low' and '_high'."""
    rows: dict[int, dict[str, float]] = {}
    for row in summaries:
        if row.control == "none" and row.mean is not None and row.low is not None and row.high is not None:
            key = f"{row.property}/{row.metric}"
            values = {key: row.mean, f"{key}_low": row.low, f"{key}_high": row.high}
            rows.setdefault(row.step, {STEP: row.step + 1}).update(values)
    return [rows[step] for step in sorted(rows)]

"""The closing table of an intervention and its verdict in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pandas import DataFrame

from diffprobe.analyses.intervention.figures import BAR_STYLES, METHOD_NAMES
from diffprobe.report.choices import METRIC_NAMES
from diffprobe.report.numbers import interval, is_number, rounded
from diffprobe.report.report import Table
from diffprobe.statistics import SIGNIFICANT, images_needed

if TYPE_CHECKING:
    from diffprobe.analyses.intervention.tables import InterventionGain, InterventionSummary

COLUMNS = {  # what tables call each metric that there may be, in this order
    "dice": "Dice with\nthe target",
    "spearman": "rank correlation\nwith the target",
    "dice_source": "Dice with\nits old label",
    "pixels_outside": "pixels changed\noutside",
    "pixels": "pixels\nchanged",
    "prompt": "prompt\nagreement",
}
HEADLINES = ("dice", "spearman")


def intervention_table(summaries: Sequence[InterventionSummary]) -> Table:
    """One line a method and control; the means of every metric, with the interval of the one that is judged by."""
    found = {(row.method, row.control, row.metric): row for row in summaries}
    metrics = [name for name in COLUMNS if any(row.metric == name for row in summaries)]
    text = DataFrame(
        [
            {"intervention": METHOD_NAMES[method] if control == "none" else label}
            | {COLUMNS[metric]: _cell(found.get((method, control, metric))) for metric in metrics}
            for method in dict.fromkeys(row.method for row in summaries)
            for control, (label, *_) in BAR_STYLES.items()
        ]
    )
    title = "New images held against the target map, means over images, with 95 % intervals"
    note = "Pixels changed: mean absolute difference in [0, 1] (outside: of old and new region)."
    return Table(text, title, show=["console"], text=text, notes=[note])


def intervention_lines(summaries: Sequence[InterventionSummary], gains: Sequence[InterventionGain]) -> list[str]:
    """One sentence a method: how far the image follows, and by how much more than each control."""
    lines = []
    for row in summaries:
        if row.control != "none" or row.metric not in HEADLINES:
            continue
        own = [gain for gain in gains if (gain.method, gain.metric) == (row.method, row.metric)]
        against = [
            f"{interval(gain.difference, gain.low, gain.high)} against {BAR_STYLES[gain.control][0]}" for gain in own
        ]
        family = sum(gain.metric == row.metric for gain in gains)
        lines.append(
            f"{METHOD_NAMES[row.method]}: {_follows(own, family)} the {row.property} probe ({row.target} of its map): "
            f"{METRIC_NAMES.get(row.metric, row.metric)} with the target {interval(row.mean, row.low, row.high)} over "
            f"{row.n} images, a gain of {' and '.join(against)}."
        )
    return lines


def _follows(gains: Sequence[InterventionGain], family: int) -> str:
    """Whether the gains over all controls are shown, or why that cannot be told; family: how many are tested."""
    needed = images_needed(family)
    fewest = min((gain.n for gain in gains), default=0)
    if fewest < needed:
        return f"no verdict ({fewest} images, it takes {needed}) on whether images follow"
    shown = all(
        is_number(gain.low) and gain.low > 0 and is_number(gain.p_holm) and gain.p_holm <= SIGNIFICANT for gain in gains
    )
    return "images follow" if shown else "images are not shown to follow"


def _cell(row: InterventionSummary | None) -> str:
    if row is None:
        return ""
    return interval(row.mean, row.low, row.high) if row.metric in HEADLINES else rounded(row.mean, 3)

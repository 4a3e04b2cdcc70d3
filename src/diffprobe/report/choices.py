"""What a report speaks of: per property one metric, the best layer, the papers' layer, and when it emerged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from diffprobe.probes.properties import property_named
from diffprobe.probes.summaries import Emergence, best_layer, emergence_step
from diffprobe.probes.tables import Score, Summary

HEADLINE_LAYER = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
METRIC_NAMES = {
    "dice": "Dice",
    "dice_background": "Dice of the background",
    "spearman": "rank correlation",
    "pearson": "Pearson correlation",
    "rmse": "RMSE",
}


@dataclass(frozen=True)
class Choice:
    """One property's part of the report.

    Attributes:
        property, metric: what was probed and its headline metric; higher is better.
        best: layer with the best validation score at the last step.
        emergence: step by which the best layer's score reaches `fraction` of its last one.
        headline: the layer the papers show; it need not be among the probed ones.
    """

    property: str
    metric: str
    best: str
    emergence: Emergence
    fraction: float = 0.95
    headline: str = HEADLINE_LAYER


def choose(summaries: Sequence[Summary], scores: Sequence[Score], fraction: float = 0.95) -> list[Choice]:
    """One choice for each property among the summaries, in their order.

    Raises:
        UserError: a property has no validation rows to choose its layer by, or no test scores there.
    """
    choices = []
    for name in dict.fromkeys(row.property for row in summaries):
        best = best_layer(summaries, name)
        emergence = emergence_step(scores, best, name, fraction=fraction)
        choices.append(Choice(name, property_named(name).headline, best, emergence, fraction))
    return choices


def curve(
    summaries: Iterable[Summary],
    choice: Choice,
    layer: str,
    control: str = "none",
    split: str = "test",
) -> list[Summary]:
    """The rows of one layer (or control) over the steps, in step order; rows without a score are kept."""
    wanted = (choice.property, choice.metric, layer, control, split)
    rows = [row for row in summaries if (row.property, row.metric, row.layer, row.control, row.split) == wanted]
    return sorted(rows, key=lambda row: row.step)


def position_row(summaries: Iterable[Summary], choice: Choice, split: str = "test") -> Summary | None:
    """The position-only control, which has no layer and no step."""
    rows = curve(summaries, choice, layer="position", control="position", split=split)
    return rows[0] if rows else None


def number(value: float | None) -> float:
    """A missing value as NaN, so that plots and comparisons can take it."""
    return math.nan if value is None else float(value)

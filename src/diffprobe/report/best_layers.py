"""The table a paper prints: per property the best layer's score, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from diffprobe.report.choices import METRIC_NAMES, Choice, at_step, control_curve, control_name, controls, curve
from diffprobe.report.names import short_names
from diffprobe.report.numbers import latex_table, markdown_table
from diffprobe.report.style import BEST_LABEL, HEADLINE_LABEL
from diffprobe.tables import NO_STEP, Step, write_rows
from diffprobe.writing import write_text

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import Comparison
    from diffprobe.probes.summaries import Summary

HEADINGS = ("property", "what", "layer", "step", "score", "best layer is above it by", "p (Holm)")


@dataclass(frozen=True, slots=True)
class BestLayerRow:
    """One line: a score (`mean`, `low`, `high` over `n` test images), and by how much the best layer is above it on
    the same images (`difference` ..., missing for the best layer itself and where nothing was compared)."""

    model: str
    probe: str
    property: str
    metric: str
    what: str
    layer: str
    step: Step
    mean: float | None
    low: float | None
    high: float | None
    n: int
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_holm: float | None


def best_layer_rows(summaries: pd.DataFrame, choices: Sequence[Choice]) -> list[BestLayerRow]:
    """Of every choice: its best layer, the papers' layer and the controls, at the last step, on test images."""
    rows = []
    for choice in choices:
        best = curve(summaries, choice, choice.best)
        if not best:
            continue
        last = best[-1].step
        rows.append(_row(choice, BEST_LABEL, best[-1], None))
        papers = at_step(curve(summaries, choice, choice.headline), last)
        if papers is not None and choice.headline != choice.best:
            paired = choice.against("layer", other_layer=choice.headline)
            rows.append(_row(choice, HEADLINE_LABEL, papers, paired))
        for control in controls(summaries, choice):
            row = at_step(control_curve(summaries, choice, control), last)
            if row is not None:
                rows.append(_row(choice, control_name(control), row, choice.against("control", other_control=control)))
    return rows


def write_best_layers(folder: Path, summaries: pd.DataFrame, choices: Sequence[Choice]) -> dict[str, Path]:
    """Writes best_layers.csv (full precision), .md and .tex (needs booktabs) into `folder`; the paths by format."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = best_layer_rows(summaries, choices)
    lines = _cells(rows)
    paths = {kind: folder / f"best_layers.{kind}" for kind in ("csv", "md", "tex")}
    write_rows(paths["csv"], BestLayerRow, rows)
    write_text(paths["md"], markdown_table(lines))
    write_text(paths["tex"], latex_table(lines))
    return paths


def _row(choice: Choice, what: str, row: Summary, paired: Comparison | None) -> BestLayerRow:
    keys = (choice.model, choice.probe, choice.property, choice.metric, what, row.layer, row.step)
    score = (row.mean, row.low, row.high, row.n)
    difference = (None,) * 4 if paired is None else (paired.difference, paired.low, paired.high, paired.p_holm)
    return BestLayerRow(*keys, *score, *difference)


def _cells(rows: Sequence[BestLayerRow]) -> list[list[str]]:
    """The table as text, the headings first. Model and probe are columns where there are several."""
    short = short_names(row.layer for row in rows)
    keys = [key for key in ("model", "probe") if len({getattr(row, key) for row in rows}) > 1]
    lines = [[*keys, *HEADINGS]]
    for row in rows:
        lines.append(
            [
                *(getattr(row, key) for key in keys),
                f"{row.property}, {METRIC_NAMES.get(row.metric, row.metric)}",
                row.what,
                short[row.layer],
                "" if row.step == NO_STEP else str(row.step + 1),
                _interval(row.mean, row.low, row.high),
                _interval(row.difference, row.difference_low, row.difference_high),
                "" if row.p_holm is None else f"{row.p_holm:.2g}",
            ]
        )
    return lines


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return ""
    middle, *ends = (f"{round(value, 3) + 0.0:.3f}" for value in (mean, low, high) if value is not None)
    return f"{middle} [{', '.join(ends)}]" if ends else middle

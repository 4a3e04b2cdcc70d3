"""What a finished probing study hands to its tracker, and its score curves as scalars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from diffprobe.report.choices import Choice, control_curve, controls, curve, number
from diffprobe.report.example import PredictionExample
from diffprobe.tables import NO_STEP

STEP = "denoising_step"


@dataclass(frozen=True)
class Results:
    """All that is to be seen of a study.

    Attributes:
        summaries, choices: the score rows and what the report speaks of.
        figures: name -> PNG file.
        examples: images with predictions, for overlays.
        files: artifact name -> files, such as {'tables': [scores.parquet, summary.csv], 'probes': [...]}.
    """

    summaries: pd.DataFrame
    choices: Sequence[Choice]
    figures: Mapping[str, Path] = field(default_factory=dict)
    examples: Sequence[PredictionExample] = ()
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)


def curve_scalars(summaries: pd.DataFrame, choices: Sequence[Choice], split: str = "test") -> list[dict[str, float]]:
    """One row a step: 'denoising_step' (from 1) and '<property>/<metric>/<curve>' with its '_low' and '_high'.

    The curves are best, headline and every control by its name (one without steps is the same at every step); a
    missing score has no key. The choices are of one model and probe.
    """
    rows: dict[int, dict[str, float]] = {}
    for choice in choices:
        best = curve(summaries, choice, choice.best, split=split)
        curves = {"best": best, "headline": curve(summaries, choice, choice.headline, split=split)}
        curves |= {name: control_curve(summaries, choice, name, split) for name in controls(summaries, choice)}
        points = [(row.step, name, row) for name, line in curves.items() for row in line if row.step != NO_STEP]
        steady = [(name, row) for name, line in curves.items() for row in line if row.step == NO_STEP]
        points += [(at.step, name, row) for at in best for name, row in steady]
        for step, name, row in points:
            key = f"{choice.property}/{choice.metric}/{name}"
            values = {key: number(row.mean), f"{key}_low": number(row.low), f"{key}_high": number(row.high)}
            rows.setdefault(step, {STEP: step + 1}).update({k: v for k, v in values.items() if math.isfinite(v)})
    return [rows[step] for step in sorted(rows)]

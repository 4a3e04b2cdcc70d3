"""How the class of an image comes out of the noise: curves over all images, and the answers for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill, shorten
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.classification.classes import PHOTOGRAPHS
from diffprobe.labels.classifiers.classifier import CONFIDENCE, STABLE, TOP_1, TOP_5
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import summary_rows
from diffprobe.report.style import (
    BLUE,
    DOUBLE_COLUMN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SINGLE_COLUMN,
    VERMILION,
    CurveStyle,
    draw_curve,
    draw_level,
    spread_ticks,
    style,
)

if TYPE_CHECKING:
    from diffprobe.analyses.classification.classes import TopRow
    from diffprobe.probes.summaries import EmergenceStep

CURVES = {
    TOP_5: ("right class among the first five", CurveStyle(GREEN, "-.", "s")),
    TOP_1: ("right class first", CurveStyle(BLUE, "--", "D", band=0.2)),
    STABLE: ("right class first from here on", CurveStyle(VERMILION, "-", "o", band=0.2)),
    CONFIDENCE: ("mean confidence in it", CurveStyle(PURPLE, (0, (3, 1)), "v")),
}
REAL = CurveStyle(GREY, (0, (1, 1)), "", band=0.25)


@dataclass(frozen=True)
class ClassExample:
    """One image: [steps, H, W, 3] in [0, 1] after each of `steps` (0-based), and the first answers at each."""

    prompt: str
    steps: tuple[int, ...]
    images: np.ndarray
    answers: Mapping[int, Sequence[TopRow]]


@style()
def class_curves(summaries: pd.DataFrame, half: EmergenceStep, real_images: str = "real photos") -> Figure:
    """Shares of images and mean confidence over steps with 95 % intervals; the line is where half are right for good.

    The horizontal line is the mean confidence in the real images, where there are any.
    """
    figure = Figure(figsize=(SINGLE_COLUMN, 3.3), layout="constrained")
    axes = figure.add_subplot()
    steps: list[int] = []
    for metric, (label, look) in CURVES.items():
        rows = sorted(summary_rows(select(summaries, metric=metric, control="none")), key=lambda row: row.step)
        steps = [row.step for row in rows]
        draw_curve(axes, [step + 1 for step in steps], rows, label, look)
    real = summary_rows(select(summaries, metric=CONFIDENCE, control=PHOTOGRAPHS))
    draw_level(axes, real[0] if real else None, f"mean confidence in {real_images}", REAL)
    if half.step is not None:
        if half.low is not None:
            last = steps[-1] if half.high is None else half.high
            axes.axvspan(half.low + 0.5, last + 1.5, color=ORANGE, alpha=0.15, linewidth=0, zorder=0)
        axes.axvline(half.step + 1, color=ORANGE, linewidth=1, zorder=1, label="half of the images right for good")
    axes.set(xlabel="denoising step", ylabel="share of images, confidence", ylim=(0, 1.02))
    axes.set_xticks([step + 1 for step in spread_ticks(steps)])
    figure.legend(loc="outside upper center", ncols=1, handlelength=3)
    return figure


@style()
def class_example(example: ClassExample) -> Figure:
    """Columns are steps: the decoded image, and under it the first five answers with their confidence."""
    shown = spread_ticks(example.steps)
    figure = Figure(figsize=(DOUBLE_COLUMN, 2.5), layout="constrained")
    figure.suptitle(fill(example.prompt, 100), parse_math=False)
    panels = figure.subplots(2, len(shown), squeeze=False, height_ratios=[1, 1.15])
    for column, step in enumerate(shown):
        above, below = panels[:, column]
        above.imshow(np.clip(example.images[example.steps.index(step)], 0, 1))
        above.set(xticks=[], yticks=[], title=f"step {step + 1}")
        above.spines[:].set_visible(False)
        _answers(below, example.answers[step])
    panels[0][0].set_ylabel("decoded image")
    panels[1][0].set_ylabel("confidence")
    return figure


def _answers(axes: Axes, rows: Sequence[TopRow]) -> None:
    """Horizontal bars, the first answer on top, each with its name; the right class in colour and bold."""
    for place, row in enumerate(rows):
        right = row.label == row.right
        axes.barh(place, row.confidence, height=0.8, color=VERMILION if right else "0.78", linewidth=0)
        name = shorten(row.label.split(",")[0], 16, placeholder="…")
        weight = "bold" if right else "normal"
        axes.text(0.02, place, name, va="center", fontsize=6.5, fontweight=weight, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[0, 1], yticks=[])
    axes.set_xticks([0, 1], ["0", "1"])

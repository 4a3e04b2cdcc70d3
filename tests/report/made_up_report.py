"""A report with one of everything, of a made-up run."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from rich.console import Console

from diffprobe.report.report import Cell, Example, Frames, HeatMap, Overlay, Plot, Report, SideBySide, Table

LAYERS = [f"up_blocks.{block}.attentions.1.transformer_blocks.0.attn1.to_out.0" for block in (1, 2)]
STEPS = 3


def make_table(rows: int = 6, **options) -> Table:
    """Scores whose order is not that of their rows."""
    mean = [0.1 * (row % 4) + 0.3 for row in range(rows)]
    data = DataFrame(
        {
            "model": "pocket",
            "layer": [LAYERS[row % 2] for row in range(rows)],
            "step": [row % STEPS for row in range(rows)],
            "mean": mean,
            "low": [value - 0.05 for value in mean],
            "high": [value + 0.05 for value in mean],
            "n": 20,
        }
    ).astype({"step": "Int64"})
    return Table(data, **options)


def draw() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    return figure


def make_report() -> Report:
    noise = np.random.default_rng(0)
    pictures, maps = noise.random((STEPS, 16, 16, 3)), noise.random((STEPS, 8, 8))
    label = noise.random((1, 8, 8))
    places = [(layer, step) for layer in LAYERS for step in range(STEPS)]
    cells = {place: Cell(0.3 + 0.1 * at, 0.2 + 0.1 * at, 0.4 + 0.1 * at, 20) for at, place in enumerate(places)}
    heat = HeatMap(
        "saliency", "Dice", cells, dict.fromkeys(LAYERS, Frames(maps)),
        {"decoded image": Frames(pictures), "saliency: label": Frames(label)}, "Of one test image: a <cube>",
    )  # fmt: skip
    example = Example(
        "a <cube>", range(STEPS), {"decoded image": Frames(pictures), "saliency: probe": Frames(maps, "magma")},
        {"saliency": Overlay(maps, label[0])},
    )  # fmt: skip
    return Report(
        title="Saliency in pocket",
        findings=[f"By step 2 of 3 the probe on {LAYERS[1]} reaches 95 % of its score."],
        questions=[("model", "pocket <b>& co</b>")],
        tables={
            "summary": make_table(30),
            "tables/best": make_table(
                2, title="Best layers", show=["csv", "markup", "console"], notes=["Of test images."]
            ),
        },
        figures={"scores": Plot(draw, "Scores over steps."), "layers_saliency": Plot(draw)},
        heatmaps=[heat],
        examples=[example],
        scalars=DataFrame({"denoising_step": [1, 2], "saliency/dice/best": [0.5, None]}),
        artifacts={"probes": save_probes},
    )


def make_view() -> SideBySide:
    """Two runs with one layer and two steps in common."""
    one = {(LAYERS[0], 0): Cell(0.2, 0.1, 0.3, 20), (LAYERS[0], 1): Cell(0.4), (LAYERS[1], 0): Cell(0.5)}
    two = {(LAYERS[0], 0): Cell(0.9, 0.8, 1.0, 20), (LAYERS[0], 1): Cell(None), (LAYERS[0], 2): Cell(0.7)}
    maps = [HeatMap("run <one>", "dice", one), HeatMap("two", "dice", two)]
    return SideBySide("saliency", maps, {(LAYERS[0], 0): ["one less two: -0.700."]}, "Of each cell alone.")


def save_probes(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    (folder / "bank.txt").write_text("weights")
    return [folder / "bank.txt"]


@dataclass
class MadeUpRun:
    """A run folder and a console that is read back; `logged` is what reached the tracker."""

    folder: Path
    tracker: MadeUpTracker | None = None
    config: dict = field(default_factory=dict)
    reproduce: list = field(default_factory=lambda: [("command", "python train.py 'a=\"b\"'")])
    console: Console = field(default_factory=lambda: Console(file=StringIO(), width=100))

    @property
    def printed(self) -> str:
        return self.console.file.getvalue()  # type: ignore[attr-defined]


class MadeUpTracker:
    def log_report(self, report, figures, files):
        self.logged = (report, figures, files)

    def describe(self):
        return "made up"

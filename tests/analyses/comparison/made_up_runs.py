"""Finished runs of made-up scores."""

from __future__ import annotations

from dataclasses import replace

from diffprobe.analyses.comparison.runs import FinishedRun, RunScore
from diffprobe.probes.summaries import summarise
from diffprobe.prototypes.separation import TestRow
from diffprobe.report.report import frame_of
from tests.reference.score_rows import Score, table_of

BLANK = Score("pocket", "a", 0, 999.0, "saliency", "linear", "none", "test", "", "dice", 0.0)
IMAGES = [f"image{number}" for number in range(20)]


def make_run(name, gain=0.0, images=IMAGES, model="pocket", **settings):
    """Layer b is best; scores rise over two steps; image by image `gain` better than another run."""
    scores = [
        replace(BLANK, model=model, layer=layer, step=step, split=split, image=image,
                value=0.4 + 0.1 * step + 0.2 * (layer == "b") + 0.005 * (at % 3) + gain)
        for split in ("validation", "test")
        for layer in ("a", "b")
        for step in (0, 1)
        for at, image in enumerate(images)
    ]  # fmt: skip
    return FinishedRun(name, table_of(scores), summarise(table_of(scores)), settings=settings)


def score(run, what="depth", probe="linear", mean=0.5):
    return RunScore(run, "pocket", probe, what, "spearman", "a", 1, mean, mean - 0.1, mean + 0.1, 20)


def make_object_run(name, values):
    """A run of objects with a statistic of each layer at step 1."""

    def row_of(layer, value):
        interval = (value, value - 0.1, value + 0.1)
        return TestRow("pocket", layer, 0, 1.0, "cosine", "scdi", "dcdi", "auc", *interval, 0.01, None, None)

    return FinishedRun(name, tests=frame_of(TestRow, [row_of(*item) for item in values.items()]))

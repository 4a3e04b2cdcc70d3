"""The page of a classification: when the right class is seen.

The curves of a classification as scalars over the denoising step, for trackers.

Plain sentences about when a classifier sees what was asked for; what the intervals do not support is not claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.analyses.classification.classes import CONFIDENCE, PHOTOGRAPHS, TOP_1, TOP_5
from diffprobe.analyses.classification.figures import ClassExample
from diffprobe.report.numbers import interval, rounded
from diffprobe.report.page.page import Example, Film, Page, asked, captioned
from diffprobe.report.results import STEP

if TYPE_CHECKING:
    from diffprobe.analyses.classification.classes import StableRow
    from diffprobe.probes.summaries import Emergence
    from diffprobe.probes.tables import Summary
    from diffprobe.statistics import Stratified


def class_scalars(summaries: Sequence[Summary]) -> list[dict[str, float]]:
    """One row a step: 'denoising_step' (from 1) and 'class/<metric>' with its '_low' and '_high'."""
    rows: dict[int, dict[str, float]] = {}
    for row in summaries:
        if row.control == "none" and row.mean is not None and row.low is not None and row.high is not None:
            key = f"{row.property}/{row.metric}"
            values = {key: row.mean, f"{key}_low": row.low, f"{key}_high": row.high}
            rows.setdefault(row.step, {STEP: row.step + 1}).update(values)
    return [rows[step] for step in sorted(rows)]


def class_lines(
    summaries: Sequence[Summary],
    half: Emergence,
    difference: Stratified | None = None,
    real_images: str = "real photos",
) -> list[str]:
    """One sentence on the step of the stable right answer, one on the last step, one against the real images."""
    generated = [row for row in summaries if row.control == "none"]
    last = max(generated, key=lambda row: row.step).step
    first, five, sure = (_row(generated, metric, last) for metric in (TOP_1, TOP_5, CONFIDENCE))
    lines = [
        _stable_line(half, last, first),
        f"At step {last + 1} {first.probe} names the right class first for {_text(first)} of the images "
        f"(n = {first.n}) and among its first five for {_text(five)}; its mean confidence in it is {_text(sure)}.",
    ]
    real = next((row for row in summaries if (row.metric, row.control) == (CONFIDENCE, PHOTOGRAPHS)), None)
    return lines + ([_photo_line(sure, real, difference, real_images)] if real and difference else [])


def _stable_line(half: Emergence, last: int, first: Summary) -> str:
    if half.step is None:
        return f"Less than half of the images are right at step {last + 1}, so no step is named by which half are."
    if half.low is None:
        line = f"Half of the images are named right for good from step {half.step + 1} of {last + 1} on"
        return f"{line}, of {half.n}: too few for an interval, so that is no verdict."
    high = f"{half.high + 1}" if half.high is not None else "after the last"
    line = f"Half of the images are named right for good from step {half.step + 1} of {last + 1}"
    line += f" [{half.low + 1}, {high}] on"
    return f"{line} (n = {first.n}; those that are wrong in the end count as later than all)."


def _photo_line(sure: Summary, real: Summary, difference: Stratified, real_images: str) -> str:
    gap = difference.difference
    if not difference.strata:
        return (
            f"Nothing is said of {real_images}: none of them is of a class that generated images are of ({_text(sure)} "
            f"against {_text(real)} over all)."
        )
    if gap.low is None or gap.high is None:
        verdict = f"not held against {real_images} in a verdict, since there are too few images for an interval"
    elif gap.low > 0:
        verdict = f"surer of generated images than of {real_images} of these classes"
    elif gap.high < 0:
        verdict = f"less sure of generated images than of {real_images} of these classes"
    else:
        verdict = f"not shown to be surer of generated images or of {real_images} of these classes"
    classes = "the class" if difference.strata == 1 else f"the {difference.strata} classes"
    return (
        f"It is {verdict}: {rounded(difference.first)} (n = {difference.first_n}) against {rounded(difference.second)} "
        f"(n = {difference.second_n}), each the mean over {classes} that both have, difference "
        f"{interval(gap.value, gap.low, gap.high)}. These are different images, so the difference is not paired; they "
        "are compared within classes, so their mix does not count."
    )


def _row(rows: Sequence[Summary], metric: str, step: int) -> Summary:
    return next(row for row in rows if (row.metric, row.step) == (metric, step))


def _text(row: Summary) -> str:
    return interval(row.mean, row.low, row.high)


TOPICS = ("analysis", "model", "data", "steps", "classifier", "seed")


def classification_page(
    config: Mapping[str, Any],
    summaries: Sequence[Summary],
    stable: Sequence[StableRow],
    verdict: Sequence[str],
    figures: Mapping[str, Path],
    examples: Sequence[ClassExample],
) -> Page:
    """All but how to reproduce it."""
    return Page(
        title=f"Classes in {config['model']['path']}, step by step",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={"scores": summaries, "first stable step of each image": stable},
        figures=captioned(figures),
        examples=[Example(each.prompt, each.steps, {"decoded image": Film(each.images)}) for each in examples],
    )

"""What is reported of a classification: when the right class is seen, and how sure the classifier is of real photos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from textwrap import fill, shorten
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffprobe.analyses.classification.classes import (
    PHOTOGRAPHS,
    ClassifierOutputs,
    against_photos,
    class_scores,
    half_stable,
    stable_steps,
    top_answers,
)
from diffprobe.labels.classifiers import CONFIDENCE, STABLE, TOP_1, TOP_5
from diffprobe.probes.score_table import score_table, select
from diffprobe.probes.summaries import summarise, summary_rows
from diffprobe.report.report import Example, Frames, Plot, Report, Table, scalars_over_steps
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
    draw_over_steps,
    draw_step,
    spread_ticks,
    style,
)
from diffprobe.report.wording import interval, interval_text, rounded, steps_text

if TYPE_CHECKING:
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers import Classifier
    from diffprobe.probes.summaries import EmergenceStep
    from diffprobe.statistics.intervals import Stratified


CURVES = {
    TOP_5: ("right class among the first five", CurveStyle(GREEN, "-.", "s")),
    TOP_1: ("right class first", CurveStyle(BLUE, "--", "D", band=0.2)),
    STABLE: ("right class first from here on", CurveStyle(VERMILION, "-", "o", band=0.2)),
    CONFIDENCE: ("mean confidence in it", CurveStyle(PURPLE, (0, (3, 1)), "v")),
}
REAL = CurveStyle(GREY, (0, (1, 1)), "", band=0.25)
HALF = CurveStyle(ORANGE, "-", "")
DECODED = "decoded image"


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
        draw_over_steps(axes, rows, label, look)
    real = summary_rows(select(summaries, metric=CONFIDENCE, control=PHOTOGRAPHS))
    draw_over_steps(axes, real, f"mean confidence in {real_images}", REAL)
    if half.step is not None:
        draw_step(axes, half.step, half.low, half.high, "half of the images right for good", HALF)
    axes.set(xlabel="denoising step", ylabel="share of images, confidence", ylim=(0, 1.02))
    axes.set_xticks([step + 1 for step in spread_ticks(steps)])
    figure.legend(loc="outside upper center", ncols=1, handlelength=3)
    return figure


@style()
def class_example(example: Example, answers: pd.DataFrame) -> Figure:
    """Columns are steps: the decoded image, and under it the first five answers with their confidence.

    Args:
        answers: the rows of `top_answers` of this image.
    """
    shown = spread_ticks(example.steps)
    figure = Figure(figsize=(DOUBLE_COLUMN, 2.5), layout="constrained")
    figure.suptitle(fill(example.title, 100), parse_math=False)
    panels = figure.subplots(2, len(shown), squeeze=False, height_ratios=[1, 1.15])
    for column, step in enumerate(shown):
        above, below = panels[:, column]
        above.imshow(np.clip(example.frames[DECODED].values[example.steps.index(step)], 0, 1))
        above.set(xticks=[], yticks=[], title=f"step {step + 1}")
        above.spines[:].set_visible(False)
        # Horizontal bars, the first answer on top, each with its name; the right class in colour and bold
        for place, row in enumerate(select(answers, step=step).to_dict("records")):
            right = row["label"] == row["right"]
            below.barh(place, row["confidence"], height=0.8, color=VERMILION if right else "0.78", linewidth=0)
            name, weight = shorten(row["label"].split(",")[0], 16, placeholder="…"), "bold" if right else "normal"
            below.text(0.02, place, name, va="center", fontsize=6.5, fontweight=weight, parse_math=False)
        below.set(xlim=(0, 1), ylim=(4.6, -0.6), yticks=[])
        below.set_xticks([0, 1], ["0", "1"])
    panels[0][0].set_ylabel(DECODED)
    panels[1][0].set_ylabel("confidence")
    return figure


TOPICS = ("analysis", "model", "data", "steps", "classifier", "seed")


def report(
    model: str,
    classifier: Classifier,
    prompts: Sequence[Prompt],
    generated: ClassifierOutputs,
    photos: ClassifierOutputs | None = None,
    real_images: str = "",
) -> Report:
    """What a classifier said of generated images, and of real ones.

    Args:
        model: name of the diffusion model.
        prompts: of the generated images, in their order.
        real_images: what the photos are, 'real photos'.
    """
    blocks, top = class_scores(generated, model, classifier.name), [top_answers(generated, model, classifier)]
    difference = None
    if photos is not None:
        blocks += class_scores(photos, model, classifier.name, PHOTOGRAPHS)
        top.append(top_answers(photos, model, classifier))
        difference = against_photos(generated, photos)
    scores, half = score_table(blocks), half_stable(generated)
    summaries = summarise(scores)
    figures = {
        "class_over_steps": Plot(
            partial(class_curves, summaries, half, real_images),
            "How many images the classifier names right after each step, and how sure it is.",
        )
    }
    examples = []
    for number, (prompt, pictures) in enumerate(zip(prompts, generated.example_images, strict=False), 1):
        examples.append(
            Example(prompt.text, list(generated.timesteps), {DECODED: Frames(pictures.permute(0, 2, 3, 1).numpy())})
        )
        figures[f"class_example_{number}"] = Plot(
            partial(class_example, examples[-1], select(top[0], image=prompt.name)),
            "One image after some of the steps, and the classifier's first five answers; the right one in colour.",
        )
    return Report(
        title=f"Classes in {model}, step by step",
        findings=class_lines(summaries, half, difference, real_images),
        topics=TOPICS,
        tables={
            "scores": Table(scores, show=["parquet"]),
            "summary": Table(summaries, title="scores"),
            "top": Table(pd.concat(top, ignore_index=True), show=["csv"]),
            "stable": Table(
                stable_steps(generated, prompts, model, classifier), title="first stable step of each image"
            ),
        },
        figures=figures,
        examples=examples,
        scalars=scalars_over_steps(
            (row.step, f"{row.property}/{row.metric}", row.mean, row.low, row.high)
            for row in summary_rows(select(summaries, control="none"))
            if row.low is not None and row.high is not None
        ),
    )


def class_lines(
    summaries: pd.DataFrame,
    half: EmergenceStep,
    difference: Stratified | None = None,
    real_images: str = "real photos",
) -> list[str]:
    """One sentence on the step of the stable right answer, one on the last step, one against the real images."""
    generated = summary_rows(select(summaries, control="none"))
    last = max(generated, key=lambda row: row.step).step
    at_last = {row.metric: row for row in generated if row.step == last}
    first, confidence = at_last[TOP_1], interval_text(at_last[CONFIDENCE])
    lines = [
        _stable_line(half, last, first.n),
        f"At step {last + 1} {first.probe} names the right class first for {interval_text(first)} of the images "
        f"(n = {first.n}) and among its first five for {interval_text(at_last[TOP_5])}; its mean confidence in it is "
        f"{confidence}.",
    ]
    real = summary_rows(select(summaries, metric=CONFIDENCE, control=PHOTOGRAPHS))
    if real and difference:
        lines.append(_photo_line(confidence, interval_text(real[0]), difference, real_images))
    return lines


def _stable_line(half: EmergenceStep, last: int, n: int) -> str:
    if half.step is None:
        return f"Less than half of the images are right at step {last + 1}, so no step is named by which half are."
    step = steps_text(half.step, half.low, half.high, "after the last")
    line = f"Half of the images are named right for good from step {step} of {last + 1} on"
    if half.low is None:
        return f"{line}, of {half.n}: too few for an interval, so that is no verdict."
    return f"{line} (n = {n}; those that are wrong in the end count as later than all)."


def _photo_line(generated: str, real: str, difference: Stratified, real_images: str) -> str:
    """`generated` and `real` are the mean confidence over all images."""
    gap = difference.difference
    if not difference.strata:
        return (
            f"Nothing is said of {real_images}: none of them is of a class that generated images are of ({generated} "
            f"against {real} over all)."
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

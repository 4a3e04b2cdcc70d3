"""What is reported of probes held against image models: when each sees a property, and which one leads.

Scores of probes and image models over the steps, and when each has emerged.

The papers' seven-row figure: an unfinished image, and what a probe and an image model see of it at each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL, ActivationBatch
from diffprobe.analyses.emergence.tables import (
    COMMON,
    OWN,
    Lead,
    PropertySummary,
    emergence_lines,
    emergence_tables,
    find_leads,
    summarise_properties,
)
from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare
from diffprobe.probes.storage import save_bank
from diffprobe.probes.summaries import summarise
from diffprobe.report.choices import METRIC_NAMES, choose, control_curve, control_name, controls, curve, curve_scalars
from diffprobe.report.grid import (
    PredictionExample,
    default_steps,
    draw_property,
    example_over_steps,
    grid_panels,
    map_frames,
    name_right,
)
from diffprobe.report.report import Example, Plot, Report, Table
from diffprobe.report.style import (
    BEST_STYLE,
    CONTROL_STYLES,
    DOUBLE_COLUMN,
    GREY,
    HEADLINE_STYLE,
    OTHER_STYLE,
    SINGLE_COLUMN,
    CurveStyle,
    draw_curve,
    draw_level,
    shared_legend,
    spread_ticks,
    style,
)
from diffprobe.report.wording import short_names

if TYPE_CHECKING:
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.summaries import Summary
    from diffprobe.report.choices import LayerChoice


PROBE_STYLE, IMAGE_MODEL_STYLE = BEST_STYLE, HEADLINE_STYLE


@style()
def emergence_curves(summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary]) -> Figure:
    """One panel a property: test scores of the best layer's probe and of the image model, with 95 % intervals.

    Vertical lines are the steps by which each has reached its share of its own last score, shades behind them their
    intervals; the horizontal line is that share of the probe's last score, a level for both. Other controls that were
    run are curves too.
    """
    width = SINGLE_COLUMN if len(property_summaries) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.4 if len(property_summaries) == 1 else 2.2), layout="constrained")
    names = short_names(summaries["layer"])
    for axes, one in zip(np.ravel(figure.subplots(1, len(property_summaries))), property_summaries, strict=True):
        _draw(axes, summaries, one)
        axes.set_title(f"{one.choice.property}: {names[one.choice.best]}")
    figure.supxlabel("denoising step", fontsize=8)
    shared_legend(figure, columns=1 if len(property_summaries) == 1 else 3)
    return figure


def _draw(axes: Axes, summaries: pd.DataFrame, one: PropertySummary) -> None:
    choice, own = one.choice, one.lead(OWN)
    rows = curve(summaries, choice, choice.best)
    steps = [row.step + 1 for row in rows]
    draw_curve(axes, steps, rows, "probe, on activations", PROBE_STYLE)
    seen = control_curve(summaries, choice, IMAGE_MODEL)
    draw_curve(axes, [row.step + 1 for row in seen], seen, "image model, on the decoded image", IMAGE_MODEL_STYLE)
    for control in controls(summaries, choice):
        if control != IMAGE_MODEL:
            _draw_control(axes, control_curve(summaries, choice, control), control)
    share = f"{100 * own.fraction:g} % of the last score"
    _draw_step(axes, own.probe_step, own.probe_low, own.probe_high, f"probe at {share}", PROBE_STYLE)
    _draw_step(
        axes, own.image_model_step, own.image_model_low, own.image_model_high, f"image model at {share}",
        IMAGE_MODEL_STYLE,
    )  # fmt: skip
    common = one.lead(COMMON).probe_level
    if common is not None:
        axes.axhline(common, color=GREY, linewidth=0.7, linestyle=":", zorder=1, label=f"{share} of the probe")
    axes.set_xlim(steps[0] - 0.5, steps[-1] + 0.5)
    axes.set_xticks(spread_ticks(steps))
    axes.set_ylabel(METRIC_NAMES.get(choice.metric, choice.metric))
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)


def _draw_control(axes: Axes, rows: Sequence[Summary], control: str) -> None:
    look = CONTROL_STYLES.get(control, OTHER_STYLE)
    if rows and rows[0].step == NO_STEP:
        draw_level(axes, rows[0], control_name(control), look)
    else:
        draw_curve(axes, [row.step + 1 for row in rows], rows, control_name(control), look)


def _draw_step(axes: Axes, step: int, low: int, high: int, label: str, look: CurveStyle) -> None:
    """A vertical line at a step and its interval as a shade; an end that is not reached is the edge of the panel."""
    if step == NO_STEP:
        return
    # Half a step on either side, so that an interval of one step is seen too.
    end = axes.get_xlim()[1] if high == NO_STEP else high + 1.5
    axes.axvspan(low + 0.5, end, color=look.colour, alpha=0.12, linewidth=0, zorder=0)
    axes.axvline(step + 1, color=look.colour, linestyle=look.dashes, linewidth=0.9, zorder=1, label=label)


WIDE = 8  # steps; from here on only the first has more than its number written over it
NAMES = 0.95  # inches that the names on the left take


@dataclass(frozen=True)
class EmergenceExample:
    """One image: with the probes' predictions, and beside them the image model's maps of the decoded images.

    image_models: property -> [steps, H, W], in the units of the labels.
    """

    probes: PredictionExample
    image_models: Mapping[str, np.ndarray]


@style()
def emergence_grid(example: EmergenceExample, shown: Sequence[int] | None = None) -> Figure:
    """Columns are steps, then the finished image over its labels; rows are the decoded image and, for each property,
    the probe and the image model.

    Args:
        shown: 0-based steps to show; by default the papers' among those there are, or evenly spread ones.
    """
    probes = example.probes
    steps = list(default_steps(probes.steps) if shown is None else shown)
    rows = [probes.steps.index(step) for step in steps]
    figure, panels = grid_panels(1 + 2 * len(probes.predictions), len(steps))
    side = (figure.get_figwidth() - NAMES) / (len(steps) + 1.6)
    figure.set_figheight(len(panels) * side * 1.08 + 0.5)
    figure.suptitle(fill(probes.title, 100), parse_math=False)
    for axes, row, step in zip(panels[0], rows, steps, strict=False):
        axes.set_title(f"{step + 1}" if row != rows[0] and len(steps) > WIDE else f"step {step + 1}")
        axes.imshow(np.clip(probes.images[row], 0, 1))
    panels[0][-1].imshow(np.clip(probes.final, 0, 1))
    name_right(panels[0][-1], "final")
    _name_left(panels[0][0], "decoded image")
    lines = iter(panels[1:])
    for name, predicted in probes.predictions.items():
        for who, maps in (("probe", predicted), ("image model", example.image_models[name])):
            line = next(lines)
            draw_property(line, name, [maps[row] for row in rows], probes.labels[name])
            _name_left(line[0], f"{name}\n{who}")
    return figure


def _name_left(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center")


TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def report(
    model: str,
    scores: pd.DataFrame,
    bank: ProbeBank,
    seen: Sequence[ActivationBatch],
    captions: Sequence[str],
    *,
    fractions: Sequence[float],
    seed: int = 0,
) -> Report:
    """When probes and image models see a property.

    Args:
        scores: of the probes and of the image models.
        bank: the probes.
        seen: example images with all that was seen of them; captions: of all images.
        fractions: of the score at the last step; the first is the one that findings and figures speak of.
        seed: of the paired comparisons.
    """
    summaries = summarise(scores)
    choices = choose(summaries, scores, fraction=fractions[0])
    leads = find_leads(scores, fractions)
    differences = _differences(scores, choices, bank.steps, seed)
    property_summaries = summarise_properties(choices, leads, differences)
    examples = [_example(each, bank.steps, captions[each.row], property_summaries) for each in seen]
    return Report(
        title=f"Probes against image models in {model}",
        findings=emergence_lines(summaries, property_summaries),
        topics=TOPICS,
        tables={
            "leads": Table.of(Lead, leads),
            "comparisons": Table.of(ScoreDifference, differences, show=["csv", "tracker"]),
            "summary": Table(summaries, title="scores"),
            "scores": Table(scores, show=["parquet"]),
            **emergence_tables(summaries, property_summaries),
        },
        figures=emergence_figures(summaries, property_summaries, examples),
        examples=[_over_steps(each) for each in examples],
        scalars=curve_scalars(summaries, choices),
        artifacts={"probes": partial(save_bank, bank)},
    )


def emergence_figures(
    summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary], examples: Sequence[EmergenceExample] = ()
) -> dict[str, Plot]:
    """The score curves and, of every example, a grid of some steps and one of all."""
    figures = {
        "emergence": Plot(
            partial(emergence_curves, summaries, property_summaries),
            "Scores over denoising steps of probes and of image models that look at the unfinished picture, with 95 % "
            "intervals; vertical lines where each has come near its last score.",
        )
    }
    caption = "One test image as it is denoised, and what the best layer's probes and the image models see of it."
    for number, example in enumerate(examples, 1):
        figures[f"example_{number}"] = Plot(partial(emergence_grid, example), caption)
        figures[f"example_{number}_all_steps"] = Plot(partial(emergence_grid, example, example.probes.steps), caption)
    return figures


def _differences(
    scores: pd.DataFrame, choices: Sequence[LayerChoice], steps: Sequence[int], seed: int
) -> list[ScoreDifference]:
    """By how much each best layer's probe is above the image model at every step, on the same images."""
    found = []
    for choice in choices:
        pairs = [
            (
                ScoreKey(choice.model, choice.best, step, choice.probe),
                ScoreKey(choice.model, IMAGE_MODEL, step, choice.probe, IMAGE_MODEL),
            )
            for step in steps
        ]
        found += compare(scores, pairs, property=choice.property, metric=choice.metric, family=IMAGE_MODEL, seed=seed)
    return found


def _example(
    seen: ActivationBatch, steps: Sequence[int], title: str, property_summaries: Sequence[PropertySummary]
) -> EmergenceExample:
    """What the best layers' probes and the image models say of one test image, step by step."""
    layers = {one.choice.property: one.choice.best for one in property_summaries}
    predictions = {name: seen.probes[name][layer] for name, layer in layers.items()}
    return EmergenceExample(
        PredictionExample.of_tensors(title, steps, seen.steps, seen.final, predictions, seen.labels),
        {name: seen.image_models[name].numpy() for name in layers},
    )


def _over_steps(example: EmergenceExample) -> Example:
    """The probes over the steps, with what the image models say beside them."""
    shown = example_over_steps(example.probes)
    maps = {
        f"{name}: image model": map_frames(name, values, example.probes.labels[name])
        for name, values in example.image_models.items()
    }
    return replace(shown, frames={**shown.frames, **maps})

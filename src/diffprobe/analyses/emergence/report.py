"""What is reported of probes held against image models: when each sees a property, and which one leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
from diffprobe.analyses.emergence.tables import (
    COMMON,
    OWN,
    Lead,
    PropertySummary,
    emergence_lines,
    emergence_tables,
    find_leads,
)
from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP
from diffprobe.probes.bank import save_bank
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare
from diffprobe.probes.summaries import summarise
from diffprobe.report.choices import choose, control_curve, controls, curve, curve_scalars
from diffprobe.report.emergence_order import emergence_order
from diffprobe.report.grid import PredictionExample, example_over_steps, prediction_grid
from diffprobe.report.report import Plot, Report, Table, with_headings
from diffprobe.report.style import (
    BEST_STYLE,
    GREY,
    HEADLINE_STYLE,
    curve_panels,
    draw_control,
    draw_over_steps,
    draw_step,
    label_scores,
    shared_legend,
    style,
)

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.study.study import ExampleImage

PROBE_STYLE, IMAGE_MODEL_STYLE = BEST_STYLE, HEADLINE_STYLE


@style()
def emergence_curves(summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary]) -> Figure:
    """One panel a property: test scores of the best layer's probe and of the image model, with 95 % intervals.

    Vertical lines are the steps by which each has reached its share of its own last score, shades behind them their
    intervals; the horizontal line is that share of the probe's last score, a level for both. Other controls that were
    run are curves too.
    """
    figure, panels = curve_panels(len(property_summaries))
    names = short_names(summaries["layer"])
    for axes, one in zip(panels, property_summaries, strict=True):
        _draw(axes, summaries, one)
        axes.set_title(f"{one.choice.property}: {names[one.choice.best]}")
    shared_legend(figure)
    return figure


def _draw(axes: Axes, summaries: pd.DataFrame, one: PropertySummary) -> None:
    choice, own = one.choice, one.lead(OWN)
    rows = curve(summaries, choice, choice.best)
    draw_over_steps(axes, rows, "probe, on activations", PROBE_STYLE)
    image_model = control_curve(summaries, choice, IMAGE_MODEL)
    draw_over_steps(axes, image_model, "image model, on the decoded image", IMAGE_MODEL_STYLE)
    for control in controls(summaries, choice):
        if control != IMAGE_MODEL:
            draw_control(axes, control_curve(summaries, choice, control), control)
    share = f"{100 * own.fraction:g} % of the last score"
    for who, steps, look in (
        ("probe", own.probe_steps(), PROBE_STYLE),
        ("image model", own.image_model_steps(), IMAGE_MODEL_STYLE),
    ):
        if steps[0] != NO_STEP:
            draw_step(axes, *steps, f"{who} at {share}", look)
    common = one.lead(COMMON).probe_level
    if common is not None:
        axes.axhline(common, color=GREY, linewidth=0.7, linestyle=":", zorder=1, label=f"{share} of the probe")
    label_scores(axes, choice.metric, [row.step for row in rows])


TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def report(
    model: str,
    scores: pd.DataFrame,
    bank: ProbeBank,
    images: Sequence[tuple[ExampleImage, Mapping[str, Tensor]]],
    captions: Sequence[str],
    *,
    fractions: Sequence[float],
    seed: int = 0,
) -> Report:
    """When probes and image models see a property.

    Args:
        scores: of the probes and of the image models.
        images: examples with the maps of the image models, see `score_image_models`; captions: of all images.
        fractions: of the score at the last step; the first is the one that findings and figures speak of.
        seed: of the paired comparisons.
    """
    summaries = summarise(scores)
    choices = choose(summaries, scores, fraction=fractions[0])
    order, order_tables = emergence_order(scores, choices, seed=seed)
    leads = find_leads(scores, fractions)
    property_summaries = []
    for choice in choices:
        pairs = [
            (
                ScoreKey(choice.model, choice.best, step, choice.probe),
                ScoreKey(choice.model, IMAGE_MODEL, step, choice.probe, IMAGE_MODEL),
            )
            for step in bank.steps
        ]
        name, metric = choice.property, choice.metric
        differences = compare(scores, pairs, property=name, metric=metric, family=IMAGE_MODEL, seed=seed)
        own = [lead for lead in leads if (lead.property, lead.layer) == (name, choice.best)]
        property_summaries.append(PropertySummary(choice, own, differences))
    differences = [row for one in property_summaries for row in one.differences]
    layers = {choice.property: choice.best for choice in choices}
    examples = [
        PredictionExample.of_image(image, captions[image.row], bank.steps, layers, bank.properties, maps)
        for image, maps in images
    ]
    return Report(
        title=f"Probes against image models in {model}",
        findings=with_headings(emergence_lines(summaries, property_summaries), order),
        topics=TOPICS,
        tables={
            "leads": Table.of(Lead, leads),
            **order_tables,
            "comparisons": Table.of(ScoreDifference, differences, show=["csv", "tracker"]),
            "summary": Table(summaries, title="scores"),
            "scores": Table(scores, show=["parquet"]),
            **emergence_tables(summaries, property_summaries),
        },
        figures=emergence_figures(summaries, property_summaries, examples),
        examples=[example_over_steps(each) for each in examples],
        scalars=curve_scalars(summaries, choices),
        artifacts={"probes": partial(save_bank, bank)},
    )


def emergence_figures(
    summaries: pd.DataFrame, property_summaries: Sequence[PropertySummary], examples: Sequence[PredictionExample] = ()
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
        figures[f"example_{number}"] = Plot(partial(prediction_grid, example), caption)
        figures[f"example_{number}_all_steps"] = Plot(partial(prediction_grid, example, example.steps), caption)
    return figures

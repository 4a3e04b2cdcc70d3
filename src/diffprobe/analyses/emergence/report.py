"""What is reported of probes held against image models: when each sees a property, and which one leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from diffprobe.analyses.emergence.figures import EmergenceExample, emergence_curves, emergence_grid
from diffprobe.analyses.emergence.image_models import IMAGE_MODEL, ActivationBatch
from diffprobe.analyses.emergence.leads import Lead, find_leads
from diffprobe.analyses.emergence.tables import PropertySummary, emergence_lines, emergence_tables, summarise_properties
from diffprobe.probes.comparisons import Comparison, ScoreKey, compare
from diffprobe.probes.storage import save_bank
from diffprobe.probes.summaries import summarise
from diffprobe.report.choices import choose, curve_scalars
from diffprobe.report.example import PredictionExample, example_over_steps, map_frames
from diffprobe.report.report import Example, Plot, Report, Table

if TYPE_CHECKING:
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.report.choices import LayerChoice

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
            "comparisons": Table.of(Comparison, differences, show=["csv", "tracker"]),
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
) -> list[Comparison]:
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

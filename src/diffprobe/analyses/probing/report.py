"""What is reported of a probing study: scores by layer and step beside their controls, and what the probes see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from diffprobe.analyses.probing.figures import probing_figures
from diffprobe.analyses.probing.findings import verdict_lines
from diffprobe.analyses.probing.published import published_table
from diffprobe.analyses.probing.tables import best_layers, closing_tables
from diffprobe.probes.comparisons import Comparison, compare_run
from diffprobe.probes.score_table import select
from diffprobe.probes.storage import save_bank
from diffprobe.report.choices import (
    METRIC_NAMES,
    LayerChoice,
    at_step,
    cell_rows,
    choose,
    control_curve,
    control_name,
    controls,
    curve_scalars,
    grouped,
)
from diffprobe.report.example import PredictionExample, example_over_steps, map_frames
from diffprobe.report.names import network_order
from diffprobe.report.numbers import interval, is_number
from diffprobe.report.report import Cell, Frames, HeatMap, Report, Table

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.bank import ProbeBank

TOPICS = ("model", "data", "layers", "steps", "property", "labeler", "probe", "control", "seed")
LayerMaps = Mapping[str, Mapping[str, np.ndarray]]  # property -> layer -> [steps, h, w]


def report(
    scores: pd.DataFrame,
    summaries: pd.DataFrame,
    *,
    seed: int = 0,
    layers: Sequence[Layer] = (),
    examples: Sequence[PredictionExample] = (),
    maps: LayerMaps | None = None,
    published: Mapping[str, Mapping[str, float]] | None = None,
    warnings: Sequence[str] = (),
    more: Mapping[str, pd.DataFrame] | None = None,
    bank: ProbeBank | None = None,
) -> Report:
    """What the scores of probes and controls say of every property.

    Args:
        summaries: of `summarise(scores)`.
        seed: of the paired comparisons.
        layers: give the heat maps their order and resolutions; without them both are read off the names.
        maps: what the probes of every layer see of the first example; cells of the heat maps open it.
        published: property -> metric or 'step' -> number, of Stable Diffusion 1.4.
        warnings: sentences that belong to the findings.
        more: tables that a run may have, by name: 'selectivity', 'learning_curve'.
        bank: the probes.

    Raises:
        UserError: as `choose` does.
    """
    comparisons = compare_run(scores, summaries, seed=seed)
    choices = choose(summaries, scores, comparisons)
    more = more or {}
    names = ", ".join(dict.fromkeys(choice.property for choice in choices))
    models = ", ".join(dict.fromkeys(choice.model for choice in choices))
    example = examples[0] if examples else None
    return Report(
        title=f"{names[:1].upper()}{names[1:]} in {models}",
        findings=[*verdict_lines(summaries, choices), *warnings],
        topics=TOPICS,
        tables={
            **closing_tables(summaries, choices),
            **published_table(published or {}, summaries, scores),
            "tables/best_layers": best_layers(summaries, choices),
            "comparisons": Table.of(Comparison, comparisons, show=["csv", "page"]),
            "scores on test images": Table(_of_headlines(summaries, choices), show=["page"]),
            "summary": Table(summaries, show=["csv", "tracker"]),
            "scores": Table(scores, show=["parquet"]),
            **{name: Table(data, show=["csv"]) for name, data in more.items()},
        },
        figures=probing_figures(summaries, choices, layers, examples, more.get("learning_curve")),
        heatmaps=[
            _heat_map(summaries, choice, group, example, (maps or {}).get(choice.property))
            for group, members in grouped(choices).items()
            for choice in members
        ],
        examples=[example_over_steps(each) for each in examples],
        scalars=curve_scalars(summaries, choices),
        artifacts={"probes": partial(save_bank, bank)} if bank is not None else {},
    )


def _of_headlines(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> pd.DataFrame:
    """The rows of test images by the headline metric of their property."""
    rows = [
        select(summaries, split="test", property=name, metric=metric)
        for name, metric in dict.fromkeys((choice.property, choice.metric) for choice in choices)
    ]
    return pd.concat(rows)


def _heat_map(
    summaries: pd.DataFrame,
    choice: LayerChoice,
    group: str,
    example: PredictionExample | None,
    maps: Mapping[str, np.ndarray] | None,
) -> HeatMap:
    """Scores on test images of every layer and step, each beside its controls."""
    layer_values = {(row.layer, row.step): row for row in cell_rows(summaries, choice)}
    order = network_order(layer for layer, _ in layer_values)
    cells = {
        key: Cell(row.mean, row.low, row.high, row.n, _notes(summaries, choice, key))
        for key, row in sorted(layer_values.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    }
    title = f"{choice.property} ({group})" if group else choice.property
    heat = HeatMap(title, METRIC_NAMES.get(choice.metric, choice.metric), cells)
    if example is None or not maps:
        return heat
    label = example.labels[choice.property]
    return replace(
        heat,
        frames={layer: map_frames(choice.property, values, label) for layer, values in maps.items()},
        beside={
            "decoded image": Frames(example.images),
            f"{choice.property}: label": map_frames(choice.property, label[None], label),
        },
        caption=f"Of one test image: {example.title}",
    )


def _notes(summaries: pd.DataFrame, choice: LayerChoice, key: tuple[str, int]) -> list[str]:
    """What the controls score at this layer and step."""
    layer, step = key
    at_layer = replace(choice, best=layer)
    rows = {name: at_step(control_curve(summaries, at_layer, name), step) for name in controls(summaries, choice)}
    scored = [
        f"{control_name(name)} {interval(row.mean, row.low, row.high, 3)}"
        for name, row in rows.items()
        if row is not None and is_number(row.mean)
    ]
    return [f"Controls: {'; '.join(scored)}."] if scored else []

"""The page of a probing study: scores, and what the probes see of some images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import summary_rows
from diffprobe.report.best_layers import best_layer_rows
from diffprobe.report.choices import (
    METRIC_NAMES,
    Choice,
    at_step,
    cell_rows,
    control_curve,
    control_name,
    controls,
    grouped,
)
from diffprobe.report.example import PredictionExample
from diffprobe.report.html.asked import asked
from diffprobe.report.names import network_order, short_names
from diffprobe.report.page.page import Cell, Example, Film, HeatMap, Page, captioned
from diffprobe.report.style import COLOUR_MAPS
from diffprobe.report.verdicts import interval_text, verdict_lines

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import Comparison

TOPICS = ("model", "data", "layers", "steps", "property", "labeler", "probe", "control", "seed")
LayerMaps = Mapping[str, Mapping[str, np.ndarray]]  # property -> layer -> [steps, h, w]


def probing_page(
    config: Mapping[str, Any],
    summaries: pd.DataFrame,
    choices: Sequence[Choice],
    comparisons: Sequence[Comparison],
    figures: Mapping[str, Path],
    examples: Sequence[PredictionExample] = (),
    maps: LayerMaps | None = None,
) -> Page:
    """All but how to reproduce it.

    Args:
        config: the composed configuration as plain values; empty where it is not known.
        maps: what the probes of every layer see of the first example; cells of the heat maps open it.
    """
    names = ", ".join(dict.fromkeys(choice.property for choice in choices))
    models = ", ".join(dict.fromkeys(choice.model for choice in choices))
    headline = {choice.property: choice.metric for choice in choices}
    shown = [row for row in summary_rows(select(summaries, split="test")) if row.metric == headline.get(row.property)]
    return Page(
        title=f"{names[:1].upper()}{names[1:]} in {models}",
        asked=asked(config, TOPICS) if config else (),
        verdict=_shortened(verdict_lines(summaries, choices), summaries["layer"].unique()),
        tables={
            "best layers": best_layer_rows(summaries, choices),
            "comparisons": comparisons,
            "scores on test images": shown,
        },
        figures=captioned(figures),
        examples=[slider_example(example) for example in examples],
        heat_maps=[
            _heat_map(summaries, choice, group, examples[0] if examples else None, (maps or {}).get(choice.property))
            for group, members in grouped(choices).items()
            for choice in members
        ],
    )


def _shortened(lines: Sequence[str], layers: Iterable[str]) -> list[str]:
    """The lines with the short names of layers, as heat maps and tables of the page have them."""
    names = sorted(short_names(layers).items(), key=lambda pair: -len(pair[0]))  # none is cut by a shorter one
    shortened = list(lines)
    for name, short in names:
        shortened = [line.replace(name, short) for line in shortened]
    return shortened


def slider_example(example: PredictionExample) -> Example:
    """The decoded image, the finished one, and of each property the best layer's probe beside the label."""
    films = {"decoded image": Film(example.images), "finished image": Film(example.final[None])}
    for name, predicted in example.predictions.items():
        films[f"{name}: probe"] = map_film(name, predicted, example.labels[name])
        films[f"{name}: label"] = map_film(name, example.labels[name][None], example.labels[name])
    return Example(example.title, example.steps, films)


def map_film(name: str, maps: np.ndarray, label: np.ndarray) -> Film:
    """Maps in the colours of the example figures, and in the range of their label."""
    low, high = (0.0, 1.0) if name == "saliency" else np.percentile(label, [2, 98]).tolist()
    return Film(maps, COLOUR_MAPS.get(name, "viridis"), low, high)


def _heat_map(
    summaries: pd.DataFrame,
    choice: Choice,
    group: str,
    example: PredictionExample | None,
    maps: Mapping[str, np.ndarray] | None,
) -> HeatMap:
    """Scores on test images of every layer and step, each beside its controls."""
    of_layers = {(row.layer, row.step): row for row in cell_rows(summaries, choice)}
    order = network_order(layer for layer, _ in of_layers)
    cells = {
        key: Cell(row.mean, row.low, row.high, row.n, _notes(summaries, choice, key))
        for key, row in sorted(of_layers.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    }
    title = f"{choice.property} ({group})" if group else choice.property
    heat = HeatMap(title, METRIC_NAMES.get(choice.metric, choice.metric), cells)
    if example is None or not maps:
        return heat
    label = example.labels[choice.property]
    return replace(
        heat,
        films={layer: map_film(choice.property, film, label) for layer, film in maps.items()},
        beside={
            "decoded image": Film(example.images),
            f"{choice.property}: label": map_film(choice.property, label[None], label),
        },
        caption=f"Of one test image: {example.title}",
    )


def _notes(summaries: pd.DataFrame, choice: Choice, key: tuple[str, int]) -> list[str]:
    """What the controls score at this layer and step."""
    layer, step = key
    at_layer = replace(choice, best=layer)
    rows = {name: at_step(control_curve(summaries, at_layer, name), step) for name in controls(summaries, choice)}
    told = [
        f"{control_name(name)} {interval_text(row, 3)}"
        for name, row in rows.items()
        if row is not None and row.mean is not None and not math.isnan(row.mean)
    ]
    return [f"Controls: {'; '.join(told)}."] if told else []

"""What is reported of a probing study: scores by layer and step beside their controls, and what the probes see.

The tables of a probing study: the closing table of the console, and the one that a paper prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffprobe.analyses.probing.figures import probing_figures
from diffprobe.analyses.probing.findings import (
    cell_rows,
    control_at,
    grouped,
    published_table,
    score_at,
    verdict_lines,
)
from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference, compare_run
from diffprobe.probes.score_table import select
from diffprobe.probes.storage import save_bank
from diffprobe.probes.summaries import EmergenceStep, Summary
from diffprobe.report.choices import (
    LayerChoice,
    choose,
    control_name,
    controls,
    curve,
    curve_scalars,
    metric_name,
)
from diffprobe.report.grid import PredictionExample, example_over_steps, map_frames
from diffprobe.report.report import Cell, Frames, HeatMap, Report, Table
from diffprobe.report.style import BEST_LABEL, HEADLINE_LABEL
from diffprobe.report.wording import interval, interval_text, is_number, network_order, short_names

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.bank import ProbeBank


def closing_tables(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> dict[str, Table]:
    """A closing table for each model and probe."""
    groups = grouped(choices).items()
    return {f"closing {group}".strip(): closing_table(summaries, members, group) for group, members in groups}


def closing_table(summaries: pd.DataFrame, choices: Sequence[LayerChoice], group: str = "") -> Table:
    """One column a property: the best layer's score at each step, then what it is to be compared with.

    The choices are of one model and probe, which `group` names where there are others.
    """
    headings = [f"{choice.property}\n{metric_name(choice.metric)}" for choice in choices]
    scores = [{row.step: row for row in curve(summaries, choice, choice.best)} for choice in choices]
    steps = sorted(set().union(*scores))
    lines = [[str(step + 1), *(interval_text(rows.get(step)) for rows in scores)] for step in steps]
    lines += _compared(summaries, choices, steps) if steps else []
    text = pd.DataFrame(lines, columns=["step", *headings])
    title = "Scores on test images at the best layer, with 95 % intervals over images"
    note = "Best layer: chosen on validation images at the last step. Steps count from 1."
    return Table(text, f"{group}: {title}" if group else title, show=["console"], text=text, notes=[note])


def _compared(summaries: pd.DataFrame, choices: Sequence[LayerChoice], steps: Sequence[int]) -> Iterator[list[str]]:
    """The best layers, when they emerged, and the scores to compare with at the last step."""
    last = steps[-1]
    names = short_names(summaries["layer"].unique())
    papers = [score_at(summaries, choice, choice.headline, last) for choice in choices]
    headline = names.get(choices[0].headline, "not probed")
    yield ["best layer", *(names.get(choice.best, choice.best) for choice in choices)]
    if len(steps) > 1:  # of one step alone nothing emerges
        yield ["emerged by step", *(_emergence_text(choice.emergence) for choice in choices)]
    yield [f"papers' layer ({headline}), step {last + 1}", *map(interval_text, papers)]
    for control in dict.fromkeys(name for choice in choices for name in controls(summaries, choice)):
        rows = [control_at(summaries, choice, control, last) for choice in choices]
        of_steps = {row.step for row in rows if row is not None}
        moment = "" if of_steps == {NO_STEP} else f", step {last + 1}"
        yield [f"{control_name(control)}{moment}", *map(interval_text, rows)]


def _emergence_text(found: EmergenceStep) -> str:
    if found.step is None:
        return "not determined"
    if found.low is None or found.high is None:
        return str(found.step + 1)
    return f"{found.step + 1} [{found.low + 1}, {found.high + 1}]"


def best_layers(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> Table:
    """Of every choice: its best layer, the papers' layer and the controls, at the last step, on test images."""
    rows = [row for choice in choices for row in _best_rows(summaries, choice)]
    difference = "by how much the best layer is above it on the same images, with its 95 % interval"
    return Table(
        pd.DataFrame(rows, columns=list(_best_row(choices[0], "", None, None))).astype({"step": "Int64"}),
        "Scores of the best layers on test images, and what they are compared with",
        show=["csv", "markup", "page"],
        notes=[f"difference: {difference}."],
        columns={"what": "the best layer, or what it is compared with", "difference": difference},
    )


def _best_rows(summaries: pd.DataFrame, choice: LayerChoice) -> Iterator[dict[str, Any]]:
    best = curve(summaries, choice, choice.best)
    if not best:
        return
    last = best[-1].step
    yield _best_row(choice, BEST_LABEL, best[-1], None)
    papers = score_at(summaries, choice, choice.headline, last)
    if papers is not None and choice.headline != choice.best:
        yield _best_row(choice, HEADLINE_LABEL, papers, choice.against("layer", other_layer=choice.headline))
    for control in controls(summaries, choice):
        row = control_at(summaries, choice, control, last)
        if row is not None:
            yield _best_row(choice, control_name(control), row, choice.against("control", other_control=control))


def _best_row(choice: LayerChoice, what: str, row: Summary | None, paired: ScoreDifference | None) -> dict[str, Any]:
    """A score, and by how much the best layer is above it (missing for the best layer itself)."""
    keys = {name: getattr(choice, name) for name in ("model", "probe", "property", "metric")}
    scored = {name: getattr(row, name, None) for name in ("layer", "step", "mean", "low", "high", "n")}
    if scored["step"] == NO_STEP:
        scored["step"] = None
    names = {"difference": "difference", "difference_low": "low", "difference_high": "high", "p_holm": "p_holm"}
    return {**keys, "what": what, **scored} | {key: getattr(paired, name, None) for key, name in names.items()}


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
            "comparisons": Table.of(ScoreDifference, comparisons, show=["csv", "page"]),
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
    heat = HeatMap(title, metric_name(choice.metric), cells)
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
    rows = {name: control_at(summaries, at_layer, name, step) for name in controls(summaries, choice)}
    scored = [
        f"{control_name(name)} {interval(row.mean, row.low, row.high, 3)}"
        for name, row in rows.items()
        if row is not None and is_number(row.mean)
    ]
    return [f"Controls: {'; '.join(scored)}."] if scored else []

"""What is reported of a probing study: scores by layer and step beside their controls, and what the probes see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from diffprobe.analyses.probing.figures import probing_figures
from diffprobe.analyses.probing.findings import (
    at_step,
    cell_rows,
    controls_at,
    emergence_text,
    published_table,
    score_at,
    verdict,
)
from diffprobe.backbone.layers import network_order, short_names
from diffprobe.files import NO_STEP
from diffprobe.probes.bank import save_bank
from diffprobe.probes.comparisons import ScoreDifference, compare_run
from diffprobe.probes.score_table import select
from diffprobe.report.choices import (
    LayerChoice,
    choose,
    control_name,
    controls,
    curve,
    curve_beside,
    curve_scalars,
    curves,
    grouped,
    metric_name,
)
from diffprobe.report.emergence_order import emergence_order
from diffprobe.report.grid import PredictionExample, example_over_steps, map_frames
from diffprobe.report.report import Cell, Frames, HeatMap, Report, Table, with_headings
from diffprobe.report.style import BEST_LABEL, HEADLINE_LABEL
from diffprobe.report.wording import interval, interval_text, is_number

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.probes.summaries import Summary

BEST_COLUMNS = (
    *("model", "probe", "property", "metric", "what", "layer", "step", "mean", "low", "high", "n"),
    *("difference", "difference_low", "difference_high", "p_holm"),
)
TOPICS = ("model", "data", "layers", "steps", "property", "labeler", "probe", "control", "seed")
COLUMNS = 4  # of a table in a terminal of 100 columns
LayerMaps = Mapping[str, Mapping[str, np.ndarray]]  # property -> layer -> [steps, h, w]


def closing_tables(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> dict[str, Table]:
    """For each model and probe, one column a property: the best layer's score at each step, then what it is to be
    compared with. More than `COLUMNS` properties are in several tables."""
    title = "Scores on test images at the best layer, with 95 % intervals over images"
    note = "Best layer: chosen on validation images at the last step. Steps count from 1."
    tables = {}
    for group, members in grouped(choices).items():
        own_title = f"{group}: {title}" if group else title
        for start in range(0, len(members), COLUMNS):
            text = _closing_lines(summaries, members[start : start + COLUMNS])
            notes = [note] if start + COLUMNS >= len(members) else []
            name = f"closing {group} {start // COLUMNS + 1 if start else ''}".strip()
            tables[name] = Table(text, own_title, show=["console"], text=text, notes=notes)
    return tables


def _closing_lines(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> pd.DataFrame:
    headings = [f"{choice.property}\n{metric_name(choice.metric)}" for choice in choices]
    scores = [{row.step: row for row in curve(summaries, choice, choice.best)} for choice in choices]
    steps = sorted(set().union(*scores))
    timesteps = {} if all(choice.emergence for choice in choices) else _timesteps(scores)
    names = {step: f"{step + 1} ({timesteps[step]:g})" if step in timesteps else str(step + 1) for step in steps}
    lines = [[names[step], *(interval_text(rows.get(step)) for rows in scores)] for step in steps]
    lines += _compared(summaries, choices, steps) if steps else []
    return pd.DataFrame(lines, columns=["step (timestep)" if timesteps else "step", *headings])


def _timesteps(scores: Sequence[Mapping[int, Summary]]) -> dict[int, float]:
    """The timestep of each step that has one."""
    return {step: row.timestep for rows in scores for step, row in rows.items() if row.timestep is not None}


def _compared(summaries: pd.DataFrame, choices: Sequence[LayerChoice], steps: Sequence[int]) -> Iterator[list[str]]:
    """The best layers, when they emerged, and the scores to compare with at the last step."""
    last = steps[-1]
    names = short_names(summaries["layer"].unique())
    papers = [score_at(summaries, choice, choice.headline, last) for choice in choices]
    headline = names.get(choices[0].headline, "not probed")
    yield ["best layer", *(names.get(choice.best, choice.best) for choice in choices)]
    emergences = [choice.emergence for choice in choices]
    if len(steps) > 1 and any(emergences):  # of one step alone nothing emerges
        yield ["emerged by step", *(emergence_text(emergence) if emergence else "" for emergence in emergences)]
    yield [f"papers' layer ({headline}), step {last + 1}", *map(interval_text, papers)]
    scores = [controls_at(summaries, choice, last) for choice in choices]
    for control in dict.fromkeys(name for rows in scores for name in rows):
        rows = [own.get(control) for own in scores]
        of_steps = {row.step for row in rows if row is not None}
        moment = "" if of_steps == {NO_STEP} else f", step {last + 1}"
        yield [f"{control_name(control)}{moment}", *map(interval_text, rows)]


def best_layers(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> Table:
    """Of every choice: its best layer, the papers' layer and the controls, at the last step, on test images."""
    lines = []
    for choice in choices:
        best = curve(summaries, choice, choice.best)
        if not best:
            continue
        last = best[-1].step
        rows: list[tuple[str, Summary | None, ScoreDifference | None]] = [(BEST_LABEL, best[-1], None)]
        if choice.headline != choice.best:
            papers = score_at(summaries, choice, choice.headline, last)
            rows.append((HEADLINE_LABEL, papers, choice.against("layer", other_layer=choice.headline)))
        for name, row in controls_at(summaries, choice, last).items():
            rows.append((control_name(name), row, choice.against("control", other_control=name)))
        for what, row, paired in rows:
            if row is not None:
                step = None if row.step == NO_STEP else row.step
                scored = [row.layer, step, row.mean, row.low, row.high, row.n]
                differing = [getattr(paired, name, None) for name in ("difference", "low", "high", "p_holm")]
                lines.append([choice.model, choice.probe, choice.property, choice.metric, what, *scored, *differing])
    difference = "by how much the best layer is above it on the same images, with its 95 % interval"
    return Table(
        pd.DataFrame(lines, columns=list(BEST_COLUMNS)).astype({"step": "Int64"}),
        "Scores of the best layers on test images, and what they are compared with",
        show=["csv", "markup", "page"],
        notes=[f"difference: {difference}."],
        columns={"what": "the best layer, or what it is compared with", "difference": difference},
    )


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
    order, order_tables = emergence_order(scores, choices, seed=seed)
    more = more or {}
    names = ", ".join(dict.fromkeys(choice.property for choice in choices))
    models = ", ".join(dict.fromkeys(choice.model for choice in choices))
    headlines = dict.fromkeys((choice.property, choice.metric) for choice in choices)
    of_headlines = [select(summaries, split="test", property=name, metric=metric) for name, metric in headlines]
    return Report(
        title=f"{names[:1].upper()}{names[1:]} in {models}",
        findings=with_headings(verdict(summaries, choices), [*order, *warnings]),
        topics=TOPICS,
        tables={
            **closing_tables(summaries, choices),
            **published_table(published or {}, summaries, scores),
            "tables/best_layers": best_layers(summaries, choices),
            **order_tables,
            "comparisons": Table.of(ScoreDifference, comparisons, show=["csv", "page"]),
            "scores on test images": Table(pd.concat(of_headlines), show=["page"]),
            "summary": Table(summaries, show=["csv", "tracker"]),
            "scores": Table(scores, show=["parquet"]),
            **{name: Table(data, show=["csv"]) for name, data in more.items()},
        },
        figures=probing_figures(summaries, choices, layers, examples, more.get("learning_curve")),
        heatmaps=[
            _heat_map(summaries, choice, group, examples, (maps or {}).get(choice.property))
            for group, members in grouped(choices).items()
            for choice in members
        ],
        examples=[example_over_steps(each) for each in examples],
        scalars=curve_scalars(summaries, choices),
        artifacts={"probes": partial(save_bank, bank)} if bank is not None else {},
    )


def _heat_map(
    summaries: pd.DataFrame,
    choice: LayerChoice,
    group: str,
    examples: Sequence[PredictionExample],
    maps: Mapping[str, np.ndarray] | None,
) -> HeatMap:
    """Scores on test images of every layer and step, each beside its controls; cells open maps of the first example."""
    rows = {(row.layer, row.step): row for row in cell_rows(summaries, choice)}
    order = network_order(layer for layer, _ in rows)
    found, names = curves(summaries, choice), controls(summaries, choice)
    beside = {layer: {name: curve_beside(found, layer, name) for name in names} for layer in order}
    cells = {}
    for (layer, step), row in sorted(rows.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        scored = [
            f"{control_name(name)} {interval(control.mean, control.low, control.high, 3)}"
            for name, control in at_step(beside[layer], step).items()
            if control is not None and is_number(control.mean)
        ]
        notes = [f"Controls: {'; '.join(scored)}."] if scored else []
        cells[layer, step] = Cell(row.mean, row.low, row.high, row.n, notes)
    title = f"{choice.property} ({group})" if group else choice.property
    heat = HeatMap(title, choice.metric, cells)
    if not examples or not maps:
        return heat
    example, label = examples[0], examples[0].labels[choice.property]
    item = example.items[choice.property]
    return replace(
        heat,
        frames={layer: map_frames(item, values, label) for layer, values in maps.items()},
        beside={
            "decoded image": Frames(example.images),
            f"{choice.property}: label": map_frames(item, label[None], label),
        },
        caption=f"Of one test image: {example.title}",
    )

"""The tables of a probing study: the closing table of the console, and the one that a paper prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from diffprobe.probes.comparisons import Comparison
from diffprobe.probes.summaries import EmergenceStep, Summary
from diffprobe.report.choices import (
    METRIC_NAMES,
    LayerChoice,
    at_step,
    control_curve,
    control_name,
    controls,
    curve,
    grouped,
)
from diffprobe.report.names import short_names
from diffprobe.report.report import Table
from diffprobe.report.style import BEST_LABEL, HEADLINE_LABEL
from diffprobe.report.verdicts import interval_text
from diffprobe.tables import NO_STEP


def closing_tables(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> dict[str, Table]:
    """A closing table for each model and probe."""
    groups = grouped(choices).items()
    return {f"closing {group}".strip(): closing_table(summaries, members, group) for group, members in groups}


def closing_table(summaries: pd.DataFrame, choices: Sequence[LayerChoice], group: str = "") -> Table:
    """One column a property: the best layer's score at each step, then what it is to be compared with.

    The choices are of one model and probe, which `group` names where there are others.
    """
    headings = [f"{choice.property}\n{METRIC_NAMES.get(choice.metric, choice.metric)}" for choice in choices]
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
    papers = [at_step(curve(summaries, choice, choice.headline), last) for choice in choices]
    headline = names.get(choices[0].headline, "not probed")
    yield ["best layer", *(names.get(choice.best, choice.best) for choice in choices)]
    if len(steps) > 1:  # of one step alone nothing emerges
        yield ["emerged by step", *(_emergence_text(choice.emergence) for choice in choices)]
    yield [f"papers' layer ({headline}), step {last + 1}", *map(interval_text, papers)]
    for control in dict.fromkeys(name for choice in choices for name in controls(summaries, choice)):
        rows = [at_step(control_curve(summaries, choice, control), last) for choice in choices]
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
    papers = at_step(curve(summaries, choice, choice.headline), last)
    if papers is not None and choice.headline != choice.best:
        yield _best_row(choice, HEADLINE_LABEL, papers, choice.against("layer", other_layer=choice.headline))
    for control in controls(summaries, choice):
        row = at_step(control_curve(summaries, choice, control), last)
        if row is not None:
            yield _best_row(choice, control_name(control), row, choice.against("control", other_control=control))


def _best_row(choice: LayerChoice, what: str, row: Summary | None, paired: Comparison | None) -> dict[str, Any]:
    """A score, and by how much the best layer is above it (missing for the best layer itself)."""
    keys = {name: getattr(choice, name) for name in ("model", "probe", "property", "metric")}
    scored = {name: getattr(row, name, None) for name in ("layer", "step", "mean", "low", "high", "n")}
    if scored["step"] == NO_STEP:
        scored["step"] = None
    names = {"difference": "difference", "difference_low": "low", "difference_high": "high", "p_holm": "p_holm"}
    return {**keys, "what": what, **scored} | {key: getattr(paired, name, None) for key, name in names.items()}

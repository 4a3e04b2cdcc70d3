"""What the intervals of CKA and of probe transfer support, as rows, sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from diffprobe.analyses.similarity.cka import Pairs, Similarities
from diffprobe.analyses.similarity.kept_tokens import coarser
from diffprobe.analyses.similarity.transfer import Transfer, TransferScores
from diffprobe.backbone.layers import short_names
from diffprobe.files import Step
from diffprobe.report.choices import LayerChoice, control_name, metric_name
from diffprobe.report.report import PaperCell, Table
from diffprobe.report.wording import direction, images_text, interval, steps_text
from diffprobe.statistics.differences import holm, images_needed, steps_reaching
from diffprobe.statistics.intervals import MINIMUM_IMAGES, SIGNIFICANT, Interval, mean_intervals

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer

FEW = 8  # so many layers are told one by one
KEPT = 0.95  # of the native score: from then on a probe counts as that of the tested step


@dataclass(frozen=True, slots=True)
class CkaPair:
    """cka.csv: debiased CKA `value` of a layer at a step with another layer or step, over `n` test images.

    `height` and `width` are of the grid on which both were compared. `biased` is the plain estimate, of all pairs of
    the same tokens.
    """

    model: str
    layer: str
    step: Step
    other_layer: str
    other_step: Step
    height: int
    width: int
    value: float | None
    low: float | None
    high: float | None
    biased: float | None
    n: int


def cka_rows(model: str, layers: Sequence[Layer], steps: Sequence[int], found: Similarities) -> list[CkaPair]:
    """Every two conditions, each pair once."""
    conditions = [(layer, step) for layer in layers for step in steps]
    low, high = found.interval()
    rows = []
    for first, second in combinations(range(len(conditions)), 2):
        (layer, step), (other, other_step) = conditions[first], conditions[second]
        one = Interval.of(*(float(each[first, second]) for each in (found.value, low, high)))
        biased = Interval.of(float(found.biased[first, second]), np.nan, np.nan).value
        grid = coarser(layer, other)
        ends = (one.value, one.low, one.high, biased, found.images)
        rows.append(CkaPair(model, layer.name, step, other.name, other_step, *grid, *ends))
    return rows


def neighbouring_steps(layers: int, steps: int) -> Pairs:
    """Pairs of conditions: a layer at a step and at the next one."""
    return [(layer * steps + at, layer * steps + at + 1) for layer in range(layers) for at in range(steps - 1)]


def neighbouring_layers(layers: int, steps: int) -> Pairs:
    """Pairs of conditions: a layer and the next one of those compared, at one step."""
    return [(layer * steps + at, (layer + 1) * steps + at) for layer in range(layers - 1) for at in range(steps)]


def steps_on_grids_of_pairs(layers: Sequence[Layer], steps: int) -> Pairs:
    """Of every two neighbouring layers the neighbouring steps of the coarser one, whose CKA is of the same grid as that
    of the two layers."""
    sizes = [layer.height * layer.width for layer in layers]
    coarse = [number + (sizes[number + 1] < sizes[number]) for number in range(len(layers) - 1)]
    return [pair for number in coarse for pair in _of_layer(neighbouring_steps(len(layers), steps), number, steps)]


def ends_of(layer: int, steps: int) -> Pairs:
    """The pair of conditions of a layer at the first and at the last step."""
    return [(layer * steps, (layer + 1) * steps - 1)]


def cka_lines(layers: Sequence[Layer], steps: Sequence[int], found: Similarities) -> list[str]:
    """How alike neighbours are, which are more so, and the first and last step of each layer."""
    count, length = len(layers), len(steps)
    names = short_names(layer.name for layer in layers)
    over_steps, over_layers = neighbouring_steps(count, length), neighbouring_layers(count, length)
    lines = []
    if over_steps:
        lines.append(f"Neighbouring steps of a layer have a mean CKA of {_text(found.mean(over_steps))}.")
    if over_layers:
        lines.append(f"Neighbouring layers at one step have a mean CKA of {_text(found.mean(over_layers))}.")
    if over_steps and over_layers:
        verdict = _more_alike(found.mean(steps_on_grids_of_pairs(layers, length), over_layers))
        lines = [f"{lines[0][:-1]}, n{lines[1][1:-1]}: {verdict}."]
    if length > 2:
        every = [pair for layer in range(count) for pair in ends_of(layer, length)]
        each = [
            f"{names[layer.name]} {_text(found.mean(ends_of(number, length)))}" for number, layer in enumerate(layers)
        ]
        told = f": {', '.join(each)}" if count <= FEW else f" of {_text(found.mean(every))} on average"
        lines.append(f"Step {steps[0] + 1} and step {steps[-1] + 1} of one layer have a CKA{told}.")
    if found.images < MINIMUM_IMAGES:
        lines.append(f"{images_text(found.images)} are too few for intervals of CKA, it takes {MINIMUM_IMAGES}.")
    return lines


def _text(one: Interval) -> str:
    return interval(one.value, one.low, one.high) or "no value"


def _more_alike(difference: Interval) -> str:
    if difference.low is None or difference.high is None:
        return "without an interval, neither are said to be more alike"
    if difference.low <= 0 <= difference.high:
        return f"on the same grids neither are shown to be more alike (difference {_text(difference)})"
    more = "steps" if difference.low > 0 else "layers"
    value = Interval.of(abs(difference.value or 0.0), *sorted((abs(difference.low), abs(difference.high))))
    return f"on the same grids the {more} are more alike, by {_text(value)}"


def transfer_lines(scores: TransferScores, rows: Sequence[Transfer], *, seed: int = 0) -> list[str]:
    """Sentences on one property and layer: the first step's probe at the last step, the last one's at the first, and
    from which step on probes are as good at the last step as its own.

    rows: of this property and layer.
    """
    last = len(scores.steps) - 1
    if not last:
        return [f"Only one step was probed for {scores.property}, so no probe is taken to another."]
    cells = [(0, last), (last, 0)]
    against = scores.against_floor(cells, seed)
    p_holm = [1.0, 1.0] if against is None else holm(against.p.tolist())
    ends = {(row.step, row.tested_step): row for row in rows}
    lines = []
    for place, (trained, tested) in enumerate(cells):
        row = ends[scores.steps[trained], scores.steps[tested]]
        sign = 0
        if against is not None and p_holm[place] <= SIGNIFICANT:
            low, high = against.low[place], against.high[place]
            sign = 1 if low > 0 else -1 if high < 0 else 0
        lines.append(_ends_line(scores, row, sign * scores.metric.sign))
    return [*lines, _kept_line(scores)]


def _ends_line(scores: TransferScores, row: Transfer, better: int) -> str:
    """`better`: 1 where it is shown to be better than pixel position, -1 worse, 0 neither."""
    higher, needed = scores.metric.higher_is_better, images_needed(2)
    good, bad = ("above", "below") if higher else ("below", "above")
    verdict = {1: f"is {good}", -1: f"is {bad}", 0: f"is not shown to be {good}"}[better]
    if row.n < needed:
        verdict = f"has no verdict, which takes {needed} images, against"
    own, kept = f"step {row.tested_step + 1}'s own probe", interval(row.share, row.share_low, row.share_high)
    if kept:
        kept = f", {kept} of that of {own}" if higher else f", of which that of {own} is {kept}"
    score = interval(row.mean, row.low, row.high) or "no score"
    mean, *ends = (float(each[0]) for each in mean_intervals(scores.floor[None])[:3])
    floor = interval(mean, max(ends[0], scores.metric.low), min(ends[1], scores.metric.high))
    return (
        f"{scores.property}: at step {row.tested_step + 1} the probe of step {row.step + 1} on {scores.layer} has "
        f"{metric_name(row.metric)}{direction(row.metric)} {score}{kept}, and {verdict} {control_name('position')} "
        f"({floor})."
    )


def _kept_line(scores: TransferScores) -> str:
    """From which step on probes are as good at the last step as its own, but for 5 %."""
    metric, last = scores.metric, len(scores.steps) - 1
    share = KEPT if metric.higher_is_better else 1 / KEPT
    at_end = scores.values[:, last]
    start = f"{scores.property}: at step {scores.steps[last] + 1}"
    what = f"{100 * share:.0f} % of its own probe's {'score' if metric.higher_is_better else 'error'}"
    native = mean_intervals(at_end[last:])
    if native.n[0] < MINIMUM_IMAGES:
        few = f"{images_text(int(native.n[0]))} are too few"
        return f"{start}, {few} to tell which probe is the first to reach {what}, it takes {MINIMUM_IMAGES}."
    if not native.low[0] > 0:
        return f"{start} its own probe has no score that is shown to be above 0."
    found = steps_reaching(metric.sign * (at_end - share * at_end[last]))
    first, low, high = (
        None if at is None else scores.steps[min(at, last)] for at in (found.first, found.low, found.high)
    )
    if found.first >= last:
        return f"{start} no probe of an earlier step reaches {what} (the first is step {steps_text(first, low, high)})."
    return f"{start} the first probe to reach {what} is that of step {steps_text(first, low, high)}."


def closing_tables(
    layers: Sequence[Layer],
    steps: Sequence[int],
    found: Similarities,
    rows: Sequence[Transfer],
    choices: Sequence[LayerChoice],
) -> dict[str, Table]:
    """On the console: CKA of every layer, and the probes of the first and last step at each other's."""
    tables = {"closing": _cka_table(layers, steps, found)}
    best = {(choice.property, choice.best) for choice in choices}
    ends = ({steps[0], steps[-1]},) if len(steps) > 1 else ()
    lines = [
        _transfer_line(row, short_names(layer.name for layer in layers)[row.layer])
        for row in rows
        if (row.property, row.layer) in best and {row.step, row.tested_step} in ends
    ]
    if lines:
        title = "Probes at the other end of the trajectory, at the best layer, with 95 % intervals over test images"
        scores = ", ".join(f"{choice.property} {metric_name(choice.metric)}" for choice in choices)
        notes = [f"Scores: {scores}. Best layer: chosen on validation images at the last step. Steps count from 1."]
        tables["closing transfer"] = Table.of_cells(lines, title=title, notes=notes, show=["console"])
    return tables


def _transfer_line(row: Transfer, layer: str) -> tuple[dict[str, str], dict[str, PaperCell]]:
    keys = {
        "property": row.property,
        "layer": layer,
        "probe at step": f"{row.step + 1} at {row.tested_step + 1}",
    }
    return keys, {
        "score": _cell(Interval(row.mean, row.low, row.high)),
        "own probe": _cell(Interval(row.native, None, None)),
        "share": _cell(Interval(row.share, row.share_low, row.share_high)),
        "pixel position": _cell(Interval(row.floor, None, None)),
    }


def _cka_table(layers: Sequence[Layer], steps: Sequence[int], found: Similarities) -> Table:
    names, count, length = short_names(layer.name for layer in layers), len(layers), len(steps)
    lines = []
    for number, layer in enumerate(layers):
        pairs: dict[str, Pairs] = {}
        if length > 1:
            pairs[f"steps {steps[0] + 1}, {steps[-1] + 1}"] = ends_of(number, length)
            pairs["next step"] = _of_layer(neighbouring_steps(count, length), number, length)
        if count > 1:
            pairs["next layer"] = _of_layer(neighbouring_layers(count, length), number, length)
        cells = {heading: _cell(found.mean(chosen)) for heading, chosen in pairs.items()}
        lines.append(({"layer": names[layer.name]}, cells))
    title = "Debiased CKA of every layer with itself and with the next, with 95 % intervals over test images"
    notes = ["Next step, next layer: means over all steps."]
    return Table.of_cells(lines, title=title, notes=notes, show=["console"])


def _of_layer(pairs: Pairs, layer: int, steps: int) -> Pairs:
    """Those whose first condition is of this layer."""
    return [pair for pair in pairs if pair[0] // steps == layer]


def _cell(one: Interval) -> PaperCell:
    return interval(one.value, one.low, one.high), {"": one.value, "low": one.low, "high": one.high}

"""Plain sentences about a run, computed from its scores; what the intervals do not support is not claimed.

Puts what a paper published beside what this run found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from diffprobe.files import NO_STEP
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import Summary, summary_rows
from diffprobe.report.choices import (
    HEADLINE_LAYER,
    LayerChoice,
    control_curve,
    control_name,
    controls,
    curve,
    metric_name,
    or_nan,
)
from diffprobe.report.report import Table
from diffprobe.report.wording import difference_text, images_text, interval_text, short_names, significant, too_few
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import MINIMUM_IMAGES

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import ScoreDifference
    from diffprobe.probes.summaries import Summary


def grouped(choices: Sequence[LayerChoice]) -> dict[str, list[LayerChoice]]:
    """The choices of each model and probe, by what tells these apart: '' if there is one alone, 'pocket, ridge'."""
    models, probes = {choice.model for choice in choices}, {choice.probe for choice in choices}
    groups: dict[str, list[LayerChoice]] = {}
    for choice in choices:
        names = [choice.model] * (len(models) > 1) + [choice.probe] * (len(probes) > 1)
        groups.setdefault(", ".join(names), []).append(choice)
    return groups


def cell_rows(summaries: pd.DataFrame, choice: LayerChoice) -> list[Summary]:
    """Test scores of every layer and step of the network itself."""
    keys = {"model": choice.model, "probe": choice.probe, "property": choice.property, "metric": choice.metric}
    return summary_rows(select(summaries, **keys, split="test", control="none"))


def score_at(summaries: pd.DataFrame, choice: LayerChoice, layer: str, step: int) -> Summary | None:
    """The test score of a layer at a step."""
    return next((row for row in curve(summaries, choice, layer) if row.step == step), None)


def control_at(summaries: pd.DataFrame, choice: LayerChoice, control: str, step: int) -> Summary | None:
    """The test score of a control at a step (see `control_curve`), or the one that holds for every step."""
    rows = control_curve(summaries, choice, control)
    return next((row for row in rows if row.step in (step, NO_STEP)), None)


STEP = "step"  # in `report.published`, beside metrics: the step, from 1, by which the property was found


def published_table(
    published: Mapping[str, Mapping[str, float]], summaries: pd.DataFrame, scores: pd.DataFrame
) -> dict[str, Table]:
    """'published': every published number of a probed property beside this run's; no table where nothing is published.

    This run's are those of test images at the papers' layer, or the first probed layer where that one is not, at the
    last step. A published step is held against the step by which 95 % of the last step's score is reached.

    Args:
        published: property -> metric or 'step' -> number, of Stable Diffusion 1.4.
    """
    real = summary_rows(select(summaries, control="none", split="test"))
    probed = {row.property for row in real}
    if not any(name in probed for name in published):
        return {}
    layers = list(dict.fromkeys(row.layer for row in real))
    layer = HEADLINE_LAYER if HEADLINE_LAYER in layers else layers[0]
    last = max(row.step for row in real)
    here = [row for row in real if row.layer == layer]
    lines = [
        {"what": f"{name}, {what}", "published": f"{number:g}", "this run": found}
        for name, numbers in published.items()
        if name in probed
        for what, number, found in _found(numbers, [row for row in here if row.property == name], last, scores)
    ]
    where = f"{short_names(layers)[layer]}, step {last + 1}"
    title = f"published (Stable Diffusion 1.4) beside this run ({here[0].model}) at {where}"
    text = pd.DataFrame(lines)
    return {"published": Table(text, title, show=["console", "page"], text=text)}


def _found(
    numbers: Mapping[str, float], rows: Sequence[Summary], last: int, scores: pd.DataFrame
) -> Iterator[tuple[str, float, str]]:
    """What was measured, its published number, and this run's in words; one for each kind of probe."""
    probes = list(dict.fromkeys(row.probe for row in rows))
    for probe in probes:
        at_last = {row.metric: row for row in rows if row.step == last and row.probe == probe}
        for metric, number in numbers.items():
            suffix = f" ({probe})" if len(probes) > 1 else ""
            if metric == STEP:
                yield f"found by step{suffix}", number, _emergence(rows[0], probe, scores)
            else:
                yield f"{metric_name(metric)}{suffix}", number, interval_text(at_last.get(metric))


def _emergence(row: Summary, probe: str, scores: pd.DataFrame) -> str:
    from diffprobe.probes.summaries import emergence_step

    found = emergence_step(scores, row.layer, row.property, probe=probe)
    if found.step is None or found.low is None or found.high is None:
        return "not determined"
    return f"{found.step + 1} [{found.low + 1}, {found.high + 1}]"


SEPARATED = "separated intervals"
OVERLAP = "the intervals overlap"
BEHIND = "the control is ahead"
UNKNOWN = "no interval to compare"
FEW = 2  # so many controls are told of one by one
COUNTS = {1: "the control", 2: "both controls"}


def verdict_lines(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> list[str]:
    """Three sentences a property: when it has emerged, whether it beats its controls at the last step by their
    intervals, and by how much on the same images. The last needs `LayerChoice.comparisons`, which are of test
    images."""
    lines = []
    for group, members in grouped(choices).items():
        for choice in members:
            found = _lines(summaries, choice)
            lines += [f"{group}: {line}" if group else line for line in found]
    return lines


def _lines(summaries: pd.DataFrame, choice: LayerChoice) -> list[str]:
    rows = curve(summaries, choice, choice.best)
    if not rows or math.isnan(or_nan(rows[-1].mean)):
        return [f"{choice.property}: no test score of {choice.best} at the last step, so no verdict."]
    lines = [_when(choice, rows), _against_controls(summaries, choice, rows[-1])]
    return lines + _paired(summaries, choice, rows[-1])


def _when(choice: LayerChoice, rows: Sequence[Summary]) -> str:
    last = rows[-1]
    if len(rows) == 1:
        return f"Only step {last.step + 1} was probed for {choice.property}, so nothing is said of when it emerges."
    score = f"final {choice.property} score, {metric_name(choice.metric)} {interval_text(last)}"
    found = choice.emergence
    if last.n < MINIMUM_IMAGES:
        return (
            f"No step is told by which the probe on {choice.best} comes near its {score}: it takes "
            f"{MINIMUM_IMAGES} images, and there are {last.n}."
        )
    if found.step is None:
        return f"No step was determined by which the probe on {choice.best} comes near its {score}."
    interval = "" if found.low is None or found.high is None else f" [{found.low + 1}, {found.high + 1}]"
    sentence = (
        f"By step {found.step + 1} of {last.step + 1}{interval} the probe on {choice.best} reaches "
        f"{100 * choice.fraction:.0f} % of its {score}"
    )
    if found.step == last.step:
        return f"{sentence}: not before the last step, so it may still be rising."
    if found.step == rows[0].step:
        return f"{sentence}: already at the first step probed, so nothing is seen to emerge."
    return f"{sentence}."


def _against_controls(summaries: pd.DataFrame, choice: LayerChoice, real: Summary) -> str:
    score = f"At step {real.step + 1} {choice.property} ({interval_text(real)}, n = {real.n})"
    names = controls(summaries, choice)
    if not names:
        return f"{score} was held against no control."
    if real.n < MINIMUM_IMAGES:
        return (
            f"{score} gets no verdict against its controls: with less than {MINIMUM_IMAGES} images there are no "
            "intervals to compare."
        )
    rows = {name: control_at(summaries, choice, name, real.step) for name in names}
    stands = {name: _relation(real, row) for name, row in rows.items()}
    them = COUNTS.get(len(names), f"all {len(names)} controls")
    told = {name: f"{control_name(name)} {interval_text(row)}" for name, row in rows.items()}
    behind = {name: relation for name, relation in stands.items() if relation != SEPARATED}
    if not behind:
        nearest = max((row.mean or 0.0, name) for name, row in rows.items() if row is not None)[1]
        details = "; ".join(told.values()) if len(names) <= FEW else f"the nearest is {told[nearest]}"
        return f"{score} is above {them} with separated intervals ({details})."
    if len(names) <= FEW:
        details = "; ".join(f"{text}, {stands[name]}" for name, text in told.items())
    else:
        details = "; ".join(f"{told[name]}, {relation}" for name, relation in behind.items())
        details += f"; {len(names) - len(behind)} others, {SEPARATED}" if len(behind) < len(names) else ""
    return f"{score} is not shown to be above {them} ({details})."


def _relation(real: Summary, control: Summary | None) -> str:
    """How the real score stands to a control, judged by their 95 % intervals."""
    if control is None:
        return UNKNOWN
    ends = [or_nan(value) for value in (real.low, real.high, control.low, control.high)]
    if not all(math.isfinite(end) for end in ends):
        return UNKNOWN
    real_low, real_high, control_low, control_high = ends
    if real_low > control_high:
        return SEPARATED
    return BEHIND if control_low > real_high else OVERLAP


def _paired(summaries: pd.DataFrame, choice: LayerChoice, real: Summary) -> list[str]:
    """One sentence on the differences from the controls on the same images; none without comparisons."""
    found = {name: choice.against("control", other_control=name) for name in controls(summaries, choice)}
    told = {name: row for name, row in found.items() if row is not None and row.difference is not None}
    pairs = {name: row for name, row in told.items() if not too_few(row, len(told))}
    lines = [_not_enough(choice, real, {name: row for name, row in told.items() if name not in pairs}, len(told))]
    parts = []
    for sign, words in ((1, "above {}"), (-1, "below {}"), (0, "not shown to differ from {}")):
        there = [
            f"{control_name(name)} by {difference_text(row, sign)}"
            if sign
            else f"{control_name(name)}, {difference_text(row)}"
            for name, row in pairs.items()
            if significant(row) == sign
        ]
        parts += [words.format("; ".join(there))] if there else []
    if parts:
        verdict = f"{choice.property} at step {real.step + 1} is {', and '.join(parts)}"
        lines.insert(0, f"Paired on the same images, {verdict}.")
    return [line for line in lines if line]


def _not_enough(choice: LayerChoice, real: Summary, few: Mapping[str, ScoreDifference], comparisons: int) -> str:
    """What keeps some controls from a paired verdict; '' if nothing does."""
    if not few:
        return ""
    names = "; ".join(f"{control_name(name)}, {difference_text(row)}" for name, row in few.items())
    least = min(row.n for row in few.values())
    return (
        f"Paired on the same images, no verdict is given on {choice.property} at step {real.step + 1} ({names}): "
        f"{images_text(least)} cannot show a difference, it takes {images_needed(comparisons)} for "
        f"{comparisons} comparison{'s' * (comparisons > 1)}."
    )

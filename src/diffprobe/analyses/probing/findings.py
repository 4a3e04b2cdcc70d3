"""What a probing study finds, in sentences that claim only what intervals support, and beside published numbers.

Also how its sentences, tables and figures look up scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP
from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import Summary, emergence_step, summary_rows
from diffprobe.report.choices import (
    HEADLINE_LAYER,
    LayerChoice,
    control_name,
    controls,
    curve,
    curve_beside,
    curves,
    grouped,
    metric_name,
    noise_falls,
    or_nan,
    sign_of,
)
from diffprobe.report.report import Table
from diffprobe.report.wording import (
    difference_text,
    direction,
    images_text,
    interval_text,
    significant,
    steps_text,
    too_few,
)
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import MINIMUM_IMAGES

if TYPE_CHECKING:
    from diffprobe.probes.summaries import EmergenceStep

STEP = "step"  # in `report.published`, beside metrics: the step, from 1, by which the property was found
SEPARATED = "separated intervals"
FEW = 2  # so many controls are named one by one


def cell_rows(summaries: pd.DataFrame, choice: LayerChoice) -> list[Summary]:
    """Test scores of every layer and step of the network itself."""
    keys = {"model": choice.model, "probe": choice.probe, "property": choice.property, "metric": choice.metric}
    return summary_rows(select(summaries, **keys, split="test", control="none"))


def score_at(summaries: pd.DataFrame, choice: LayerChoice, layer: str, step: int) -> Summary | None:
    """The test score of a layer at a step."""
    return next((row for row in curve(summaries, choice, layer) if row.step == step), None)


def control_curves(summaries: pd.DataFrame, choice: LayerChoice) -> dict[str, list[Summary]]:
    """The test scores of every control over the steps, see `curve_beside`."""
    found = curves(summaries, choice)
    return {name: curve_beside(found, choice.best, name) for name in controls(summaries, choice)}


def at_step(curves: Mapping[str, Sequence[Summary]], step: int) -> dict[str, Summary | None]:
    """The row of each curve at a step, or the one that holds for every step."""
    return {name: next((row for row in rows if row.step in (step, NO_STEP)), None) for name, rows in curves.items()}


def controls_at(summaries: pd.DataFrame, choice: LayerChoice, step: int) -> dict[str, Summary | None]:
    """The test score of every control at a step."""
    return at_step(control_curves(summaries, choice), step)


def emergence_text(emergence: EmergenceStep) -> str:
    """'5 [4, 7]', from 1; '5' without an interval."""
    return steps_text(emergence.step, emergence.low, emergence.high, "not determined")


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
    if not set(published) & {row.property for row in real}:
        return {}
    layers = list(dict.fromkeys(row.layer for row in real))
    layer = HEADLINE_LAYER if HEADLINE_LAYER in layers else layers[0]
    last = max(row.step for row in real)
    lines = []
    for name, numbers in published.items():
        rows = [row for row in real if (row.layer, row.property) == (layer, name)]
        probes = list(dict.fromkeys(row.probe for row in rows))
        for probe in probes:
            suffix = f" ({probe})" if len(probes) > 1 else ""
            at_last = {row.metric: row for row in rows if (row.step, row.probe) == (last, probe)}
            falls = noise_falls(select(summaries, layer=layer, property=name, probe=probe, control="none"))
            for metric, number in numbers.items():
                if metric == STEP and not falls:
                    continue
                what, text = metric_name(metric), interval_text(at_last.get(metric))
                if metric == STEP:
                    emergence = emergence_step(scores, layer, name, probe=probe)
                    what = "found by step"
                    text = "not determined" if emergence.low is None else emergence_text(emergence)
                lines.append({"what": f"{name}, {what}{suffix}", "published": f"{number:g}", "this run": text})
    where = f"{short_names(layers)[layer]}, step {last + 1}"
    title = f"published (Stable Diffusion 1.4) beside this run ({real[0].model}) at {where}"
    table = pd.DataFrame(lines)
    return {"published": Table(table, title, show=["console", "page"], text=table)}


def verdict(summaries: pd.DataFrame, choices: Sequence[LayerChoice]) -> dict[str, list[str]]:
    """Three sentences a choice, by its property, model and probe: when it has emerged, whether it beats its controls at
    the last step by their intervals, and by how much on the same images. The last needs `LayerChoice.comparisons`,
    which are of test images."""
    found = {}
    for group, members in grouped(choices).items():
        for choice in members:
            lines = _lines(summaries, choice)
            heading = f"{choice.property} ({group})" if group else choice.property
            found[heading] = [f"{group}: {line}" if group else line for line in lines]
    return found


def _lines(summaries: pd.DataFrame, choice: LayerChoice) -> list[str]:
    rows = curve(summaries, choice, choice.best)
    if not rows or math.isnan(or_nan(rows[-1].mean)):
        return [f"{choice.property}: no test score of {choice.best} at the last step, so no verdict."]
    return [
        _emergence_line(choice, rows),
        _controls_line(summaries, choice, rows[-1]),
        *_paired_lines(summaries, choice, rows[-1].step),
    ]


def _emergence_line(choice: LayerChoice, rows: Sequence[Summary]) -> str:
    last, emergence = rows[-1], choice.emergence
    if len(rows) == 1:
        return f"Only step {last.step + 1} was probed for {choice.property}, so nothing is said of when it emerges."
    what = "score" if sign_of(choice.metric) > 0 else "error"
    if emergence is None:
        return (
            f"No step is named by which {choice.property} emerges, since the noise does not fall from step to step "
            f"({_moment(rows[0])}, {_moment(last)}). Its {what} on {choice.best}, {metric_name(choice.metric)}, is "
            f"{interval_text(rows[0])} at the first of them and {interval_text(last)} at the last."
        )
    score = f"final {choice.property} {what}, {metric_name(choice.metric)} {interval_text(last)}"
    if last.n < MINIMUM_IMAGES:
        return (
            f"No step is named by which the probe on {choice.best} comes near its {score}: it takes "
            f"{MINIMUM_IMAGES} images, and there are {last.n}."
        )
    if emergence.step is None:
        return f"No step was determined by which the probe on {choice.best} comes near its {score}."
    sentence = (
        f"By step {emergence_text(emergence)} of {last.step + 1} the probe on {choice.best} "
        f"{_reached(choice)} of its {score}"
    )
    if emergence.step == last.step:
        return f"{sentence}: not before the last step, so it may still be rising."
    if emergence.step == rows[0].step:
        return f"{sentence}: already at the first step probed, so nothing is seen to emerge."
    return f"{sentence}."


def _moment(row: Summary) -> str:
    return f"step {row.step + 1} is timestep {row.timestep:g}" if row.timestep is not None else f"step {row.step + 1}"


def _reached(choice: LayerChoice) -> str:
    """'reaches 95 %', of an error 'comes down to 105 %'."""
    share = f"{100 * choice.fraction:.0f} %"
    return f"reaches {share}" if sign_of(choice.metric) > 0 else f"comes down to {100 / choice.fraction:.0f} %"


def _controls_line(summaries: pd.DataFrame, choice: LayerChoice, real: Summary) -> str:
    lower = direction(choice.metric).replace(" (", ", ").rstrip(")")
    score = f"At step {real.step + 1} {choice.property} ({interval_text(real)}, n = {real.n}{lower})"
    rows = controls_at(summaries, choice, real.step)
    if not rows:
        return f"{score} was held against no control."
    if real.n < MINIMUM_IMAGES:
        return (
            f"{score} gets no verdict against its controls: with less than {MINIMUM_IMAGES} images there are no "
            "intervals to compare."
        )
    them = {1: "the control", 2: "both controls"}.get(len(rows), f"all {len(rows)} controls")
    texts = {name: f"{control_name(name)} {interval_text(row)}" for name, row in rows.items()}
    relations = {name: _relation(real, row, sign_of(choice.metric)) for name, row in rows.items()}
    better = "above" if sign_of(choice.metric) > 0 else "below"
    near = {name: relation for name, relation in relations.items() if relation != SEPARATED}
    if not near:
        sign = sign_of(choice.metric)
        nearest = max((sign * (row.mean or 0.0), name) for name, row in rows.items() if row is not None)[1]
        details = "; ".join(texts.values()) if len(rows) <= FEW else f"the nearest is {texts[nearest]}"
        return f"{score} is {better} {them} with separated intervals ({details})."
    named = relations if len(rows) <= FEW else near
    details = "; ".join(f"{texts[name]}, {relation}" for name, relation in named.items())
    if len(named) < len(rows):
        details += f"; {len(rows) - len(named)} others, {SEPARATED}"
    return f"{score} is not shown to be {better} {them} ({details})."


def _relation(real: Summary, control: Summary | None, sign: int) -> str:
    """How the real score stands to a control, judged by their 95 % intervals; `sign` is -1 of errors."""
    if control is None:
        return "no interval to compare"
    real_low, real_high, control_low, control_high = ends = [
        or_nan(value) for value in (real.low, real.high, control.low, control.high)
    ]
    if not all(math.isfinite(end) for end in ends):
        return "no interval to compare"
    if real_low <= control_high and control_low <= real_high:
        return "the intervals overlap"
    return SEPARATED if sign * (real_low - control_low) > 0 else "the control is ahead"


def _paired_lines(summaries: pd.DataFrame, choice: LayerChoice, step: int) -> list[str]:
    """What the differences from the controls on the same images show, and which have too few images to show any."""
    against = {name: choice.against("control", other_control=name) for name in controls(summaries, choice)}
    rows = {control_name(name): row for name, row in against.items() if row is not None and row.difference is not None}
    few = {name: row for name, row in rows.items() if too_few(row, len(rows))}
    parts = []
    for sign, words, between in ((1, "above", " by "), (-1, "below", " by "), (0, "not shown to differ from", ", ")):
        texts = [
            f"{name}{between}{difference_text(row, sign or 1)}"
            for name, row in rows.items()
            if name not in few and significant(row) == sign
        ]
        parts += [f"{words} {'; '.join(texts)}"] if texts else []
    where = f"{choice.property}{direction(choice.metric)} at step {step + 1}"
    lines = [f"Paired on the same images, {where} is {', and '.join(parts)}."] if parts else []
    if few:
        texts = [f"{name}, {difference_text(row)}" for name, row in few.items()]
        lines.append(
            f"Paired on the same images, no verdict is given on {where} ({'; '.join(texts)}): "
            f"{images_text(min(row.n for row in few.values()))} cannot show a difference, it takes "
            f"{images_needed(len(rows))} for {len(rows)} comparison{'s' * (len(rows) > 1)}."
        )
    return lines

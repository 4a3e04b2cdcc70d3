"""Plain sentences about a run, computed from its scores; what the intervals do not support is not claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffprobe.report.choices import METRIC_NAMES, Choice, curve, number, position_row

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary

SEPARATED = "separated intervals"
OVERLAP = "the intervals overlap"
BEHIND = "the control is ahead"
UNKNOWN = "no interval to compare"


def verdict_lines(summaries: Sequence[Summary], choices: Sequence[Choice], split: str = "test") -> list[str]:
    """Two sentences a property: when it has emerged, and whether it beats both controls at the last step."""
    lines = []
    for choice in choices:
        rows = curve(summaries, choice, choice.best, split=split)
        if not rows or math.isnan(number(rows[-1].mean)):
            lines.append(f"{choice.property}: no {split} score of {choice.best} at the last step, so no verdict.")
            continue
        lines += [_when(choice, rows), _against_controls(summaries, choice, rows[-1], split)]
    return lines


def interval_text(row: Summary | None, digits: int = 2) -> str:
    """'0.86 [0.83, 0.89]'; 'no score' where there is none, '0.86' where it has no interval."""
    if row is None or math.isnan(number(row.mean)):
        return "no score"
    mean, low, high = (f"{number(value):.{digits}f}" for value in (row.mean, row.low, row.high))
    return mean if "nan" in (low, high) else f"{mean} [{low}, {high}]"


def _when(choice: Choice, rows: Sequence[Summary]) -> str:
    last = rows[-1]
    if len(rows) == 1:
        return f"Only step {last.step + 1} was probed for {choice.property}, so nothing is said of when it emerges."
    score = f"final {choice.property} score, {METRIC_NAMES.get(choice.metric, choice.metric)} {interval_text(last)}"
    found = choice.emergence
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


def _against_controls(summaries: Sequence[Summary], choice: Choice, real: Summary, split: str) -> str:
    permuted = {row.step: row for row in curve(summaries, choice, choice.best, "permuted", split)}
    controls = {
        "the permuted network": permuted.get(real.step),
        "pixel position": position_row(summaries, choice, split),
    }
    stands = {name: _relation(real, row) for name, row in controls.items()}
    score = f"At step {real.step + 1} {choice.property} ({interval_text(real)}, n = {real.n})"
    if all(relation == SEPARATED for relation in stands.values()):
        details = "; ".join(f"{name} {interval_text(row)}" for name, row in controls.items())
        return f"{score} is above both controls with separated intervals ({details})."
    details = "; ".join(f"{name} {interval_text(row)}, {stands[name]}" for name, row in controls.items())
    return f"{score} is not shown to be above both controls ({details})."


def _relation(real: Summary, control: Summary | None) -> str:
    """How the real score stands to a control, judged by their 95 % intervals."""
    if control is None:
        return UNKNOWN
    ends = [number(value) for value in (real.low, real.high, control.low, control.high)]
    if not all(math.isfinite(end) for end in ends):
        return UNKNOWN
    real_low, real_high, control_low, control_high = ends
    if real_low > control_high:
        return SEPARATED
    return BEHIND if control_low > real_high else OVERLAP

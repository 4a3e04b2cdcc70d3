"""What is said of shortcuts: from which step on a property of the picture is fixed, in sentences and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from diffprobe.analyses.shortcuts.agreement import CLASS, PICTURE
from diffprobe.analyses.shortcuts.fixed import ANY, ANY_SAME_PROMPT, AgreementSummary, FixedStep
from diffprobe.analyses.shortcuts.study import UNRELATED
from diffprobe.analyses.shortcuts.ways import NAMES
from diffprobe.backbone.layers import short_names
from diffprobe.report.choices import metric_name
from diffprobe.report.report import PaperCell, Table
from diffprobe.report.wording import images_text, interval, p_text, rounded
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import MINIMUM_IMAGES, SIGNIFICANT

if TYPE_CHECKING:
    import pandas as pd

_WHATEVER = {ANY: "whatever shortcut", ANY_SAME_PROMPT: "whatever shortcut with the same prompt"}
_WAY_NAMES = {**_WHATEVER, UNRELATED: "unrelated pictures", **NAMES}


def shortcut_label(shortcut: str) -> str:
    """What a shortcut is called in sentences and legends."""
    return _WAY_NAMES[shortcut]


def beside(summaries: Sequence[AgreementSummary]) -> list[tuple[str, str]]:
    """Classes and pictures, as (property, metric): they have no probe, and no step from which on they are fixed."""
    found = dict.fromkeys((row.property, row.metric) for row in summaries)
    return [key for key in found if key[0] in (CLASS, PICTURE)]


def shortcut_lines(
    rows: Sequence[FixedStep], summaries: Sequence[AgreementSummary], sampling_steps: int
) -> dict[str, list[str]]:
    """Sentences by heading: of each property, and of the pictures themselves."""
    tests = sum(row.p is not None for row in rows)
    lines: dict[str, list[str]] = {}
    for name in dict.fromkeys(row.property for row in rows):
        own = [row for row in rows if row.property == name]
        each = [row for row in own if row.shortcut not in _WHATEVER]
        floor = _unrelated(summaries, name, own[0].metric)
        lines[name] = [_fixed_line(row, sampling_steps, tests) for row in own if row.shortcut in _WHATEVER]
        lines[name].append(_by_shortcut(own[0], each, floor))
    half = max(
        (row.full_steps for row in summaries if row.full_steps and 2 * row.full_steps <= sampling_steps + 1), default=0
    )
    found = [_line_beside(summaries, *key, half, sampling_steps) for key in beside(summaries)]
    return lines | ({"the pictures": found} if found else {})


def steps_counted(step: int | None, low: int | None, high: int | None, n: int) -> str:
    """'9 [8, 10]', numbers of full steps; 'later' for what is not reached, and no interval of too few images."""
    point, *ends = ("later" if value is None else str(value) for value in (step, low, high))
    return point if n < MINIMUM_IMAGES else f"{point} [{', '.join(ends)}]"


def _fixed_line(row: FixedStep, sampling_steps: int, tests: int) -> str:
    fixed = steps_counted(row.fixed, row.fixed_low, row.fixed_high, row.n)
    only = "only " if row.fixed == sampling_steps else ""  # where nothing is left that a shortcut could change
    less = f"less than {row.tolerance:g} {metric_name(row.metric)} {shortcut_label(row.shortcut)} is taken"
    return (
        f"{row.property}: {only}after step {fixed} of {sampling_steps} the final picture's {row.property} changes by "
        f"{less}, on average over {images_text(row.n)}; {_verdict(row, tests)}."
    )


def _verdict(row: FixedStep, tests: int) -> str:
    """Whether that is before or after the probe could read it; nothing where the interval holds 0."""
    layer = next(iter(short_names([row.layer]).values()))
    if row.probe is None:
        return f"the probe on {layer} has no step by which it could read it"
    if row.probe_low is None and row.n >= MINIMUM_IMAGES:
        return f"the probe on {layer} is not shown to read it"
    reads = (
        f"the probe on {layer} could read it (step {steps_counted(row.probe, row.probe_low, row.probe_high, row.n)})"
    )
    needed = images_needed(tests)
    if row.n < needed:
        return f"{images_text(row.n)} are too few to say whether this is before or after {reads}, it takes {needed}"
    if row.later is None or row.later_low is None or row.later_high is None:
        return f"nothing is known of whether this is before or after {reads}"
    sign = shown(row)
    if not sign:
        p = p_text(row.p_holm)
        return f"it is not shown whether this is before or after {reads}: {_later(row)} steps, p = {p} after Holm"
    value, low, high = (sign * each for each in (row.later, row.later_low, row.later_high))
    ends = f"{value} [{min(low, high)}, {max(low, high)}]"
    return f"this is {ends} steps {'after' if sign > 0 else 'before'} {reads}"


def shown(row: FixedStep) -> int:
    """1: the outcome is shown to be fixed after the probe could read it, -1: before, 0: neither."""
    if row.later_low is None or row.later_high is None or row.p_holm is None or row.p_holm > SIGNIFICANT:
        return 0
    return 1 if row.later_low > 0 else -1 if row.later_high < 0 else 0


def _later(row: FixedStep) -> str:
    """'4 [2, 5]' steps that it is later than the probe; '' where that is unknown."""
    if row.later is None or row.later_low is None:
        return "" if row.later is None else str(row.later)
    return f"{row.later} [{row.later_low}, {row.later_high}]"


def _by_shortcut(row: FixedStep, own: Sequence[FixedStep], floor: AgreementSummary | None) -> str:
    steps = ", ".join(
        f"{shortcut_label(each.shortcut)} {steps_counted(each.fixed, each.fixed_low, each.fixed_high, each.n)}"
        for each in own
    )
    name = metric_name(row.metric)
    scale = f" Unrelated pictures agree by {name} {_mean(floor)}." if floor is not None and floor.n else ""
    return f"{row.property}, by shortcut, after step: {steps}.{scale}"


def _unrelated(summaries: Sequence[AgreementSummary], name: str, metric: str) -> AgreementSummary | None:
    found = (row for row in summaries if (row.shortcut, row.property, row.metric) == (UNRELATED, name, metric))
    return next(found, None)


def _mean(row: AgreementSummary) -> str:
    return interval(row.mean, row.low, row.high)


def _line_beside(summaries: Sequence[AgreementSummary], name: str, metric: str, taken: int, sampling_steps: int) -> str:
    """The agreement of all shortcuts that are begun after so many steps, and of unrelated pictures."""
    own = [row for row in summaries if (row.property, row.metric, row.full_steps) == (name, metric, taken)]
    each = ", ".join(f"{shortcut_label(row.shortcut)} {_mean(row)}" for row in own if row.n)
    floor = _unrelated(summaries, name, metric)
    compared = f"; unrelated pictures {_mean(floor)}" if floor is not None and floor.n else ""
    begun = f"begun after {taken} of {sampling_steps} steps"
    return f"{metric_name(metric)} with the whole run's picture, {begun}: {each}{compared}."


def shortcut_tables(
    rows: Sequence[FixedStep], costs: pd.DataFrame, seconds: pd.DataFrame, sampling_steps: int
) -> dict[str, Table]:
    """The closing table, with measured times, and tables/fixed_steps without."""
    title = (
        "After how many full steps a property of the final picture is fixed, and how much later that is than the "
        "probe's step, with 95 % intervals over test images"
    )
    work = {
        (way, taken): 1 - value / sampling_steps
        for way, taken, value in costs[["shortcut", "full_steps", "work"]].itertuples(index=False)
    }
    times = {(way, taken): value for way, taken, value in seconds.itertuples(index=False)}
    note = (
        "spared: operations of the denoiser that a shortcut begun there spares, of all in the whole run; time: "
        "measured seconds of the denoising, of the whole run's."
    )
    return {
        "closing": Table.of_cells(
            [_cells(row, work, times) for row in rows], title=title, notes=[note], show=["console"]
        ),
        "tables/fixed_steps": Table.of_cells([_cells(row, work) for row in rows], title=title, show=["csv", "markup"]),
    }


def _cells(
    row: FixedStep,
    work: Mapping[tuple[str, int | None], float],
    times: Mapping[tuple[str, int | None], float] | None = None,
) -> tuple[dict[str, str], dict[str, PaperCell]]:
    keys = {"property": f"{row.property}, {metric_name(row.metric)}", "shortcut": shortcut_label(row.shortcut)}
    spared = work.get((row.shortcut, row.fixed))
    cells: dict[str, PaperCell] = {
        "fixed after step": _step_cell(row.fixed, row.fixed_low, row.fixed_high, row.n),
        "probe reads by step": _step_cell(row.probe, row.probe_low, row.probe_high, row.n),
        "later by": (
            _later(row),
            {"": _number(row.later), "low": _number(row.later_low), "high": _number(row.later_high)},
        ),
        "spared": ("" if spared is None else f"{100 * spared:.0f} %", {"": spared}),
    }
    if times is not None:
        cells["time"] = rounded(times.get((row.shortcut, row.fixed))), {}
    return keys, cells


def _step_cell(step: int | None, low: int | None, high: int | None, n: int) -> PaperCell:
    numbers = {"": _number(step), "low": _number(low), "high": _number(high)}
    return steps_counted(step, low, high, n), numbers


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)

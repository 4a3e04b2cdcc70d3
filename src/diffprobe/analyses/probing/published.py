"""Puts what a paper published beside what this run found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from diffprobe.probes.score_table import select
from diffprobe.probes.summaries import Summary, summary_rows
from diffprobe.report.choices import HEADLINE_LAYER, METRIC_NAMES
from diffprobe.report.names import short_names
from diffprobe.report.report import Table
from diffprobe.report.verdicts import interval_text

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
                yield f"{METRIC_NAMES.get(metric, metric)}{suffix}", number, interval_text(at_last.get(metric))


def _emergence(row: Summary, probe: str, scores: pd.DataFrame) -> str:
    from diffprobe.probes.summaries import emergence_step

    found = emergence_step(scores, row.layer, row.property, probe=probe)
    if found.step is None or found.low is None or found.high is None:
        return "not determined"
    return f"{found.step + 1} [{found.low + 1}, {found.high + 1}]"

"""Plain sentences about runs side by side; what the intervals do not support is not claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffprobe.report.choices import METRIC_NAMES
from diffprobe.report.numbers import interval, p_text, there
from diffprobe.report.run_figures import labels_of
from diffprobe.report.verdicts import difference_text, images_text, significant, too_few

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import Comparison
    from diffprobe.studies.run_comparison import RunScore

MANY = 6  # more differences are told by their number


def run_lines(headlines: Sequence[RunScore], differences: Sequence[Comparison]) -> list[str]:
    """For each score one sentence with those of all runs, and one for each difference on the same images."""
    lines = []
    for what, metric in dict.fromkeys((row.what, row.metric) for row in headlines):
        rows = [row for row in headlines if (row.what, row.metric) == (what, metric)]
        told = (
            f"{name} {interval(row.mean, row.low, row.high)}" for name, row in zip(labels_of(rows), rows, strict=True)
        )
        lines.append(f"{what}, {METRIC_NAMES.get(metric, metric)}: {'; '.join(told)}.")
        own = [row for row in differences if (row.property, row.metric) == (what, metric)]
        lines += [_difference_line(row, len(own)) for row in own] if len(own) <= MANY else [_many_line(own)]
    return lines


def _difference_line(row: Comparison, comparisons: int) -> str:
    one, other = _names(row)
    if row.n == 0:
        return f"{row.property}: {one} and {other} have no test images in common, so no difference is paired."
    common = f"on the {images_text(row.n)} in common"
    rest = f"; {row.left_out} more lack a score in one of them" if row.left_out else ""
    if needed := too_few(row, comparisons):
        return (
            f"{row.property}: no verdict on {one} and {other} {common} ({difference_text(row)}): it takes {needed} to "
            f"show a difference{rest}."
        )
    verdict = {1: "is above", -1: "is below", 0: "is not shown to differ from"}[significant(row)]
    p = f", p = {p_text(row.p_holm)} after Holm" if there(row.p_holm) else ""
    return f"{row.property}: {one} {verdict} {other} {common}: {difference_text(row)}{p}{rest}."


def _names(row: Comparison) -> tuple[str, str]:
    """What the two are called: by their probe too, where they are of one run."""
    if row.model != row.other_model:
        return row.model, row.other_model
    return f"{row.model}, {row.probe}", f"{row.other_model}, {row.other_probe}"


def _many_line(rows: Sequence[Comparison]) -> str:
    apart = sum(significant(row) != 0 for row in rows)
    return (
        f"{rows[0].property}: {apart} of {len(rows)} differences on the same images are shown; comparisons.csv has all."
    )

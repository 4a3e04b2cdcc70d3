"""The page of an analysis of objects: the four sets, and how far objects drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffprobe.report.findings import Finding, grouped_findings
from diffprobe.report.numbers import interval, p_text, there
from diffprobe.report.page.asked import asked
from diffprobe.report.page.captions import captioned
from diffprobe.report.page.page import Cell, HeatMap, Page

TOPICS = ("analysis", "model", "objects", "layers", "steps", "measure", "seed")


def separation_page(
    config: Mapping[str, Any],
    found: Sequence[Finding],
    tables: Mapping[str, Sequence[Any]],
    verdict: Sequence[str],
    figures: Mapping[str, Path],
) -> Page:
    """All but how to reproduce it; `found` is empty for analyses of drift."""
    kind, model = config["analysis"]["kind"], config["model"]["path"]
    groups = grouped_findings(found).items()
    heat_maps = [_heat_map(members, group) for group, members in groups]
    return Page(
        title=f"Objects in {model}: {kind}",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={name: rows for name, rows in tables.items() if rows},
        figures=captioned(figures),
        heat_maps=[heat for heat in heat_maps if heat.cells],
    )


def _heat_map(found: Sequence[Finding], group: str) -> HeatMap:
    """AUC of scdi < dcdi; a cell opens the means of the sets and the tests at its layer and step."""
    cells = {}
    for item in found:
        row = item.test("auc", "scdi", "dcdi")
        if row is not None:
            cells[item.layer, item.step] = Cell(row.value, row.low, row.high, None, _notes(item))
    title = "Same class against different classes, in different images"
    return HeatMap(f"{title} ({group})" if group else title, "AUC of scdi < dcdi", cells)


def _notes(item: Finding) -> list[str]:
    means = [f"{name} {interval(row.mean, row.low, row.high, 3)}" for name, row in item.sets.items() if there(row.mean)]
    notes = [f"Means of the sets: {', '.join(means)}."]
    if item.in_order is not None:
        notes.append(f"By means the four sets are {'in order' if item.in_order else 'not in order'}.")
    test = item.test("permutation_between_images", "scdi", "dcdi")
    return notes + ([f"Block permutation p = {p_text(test.p, test.log10_p)}."] if test is not None else [])

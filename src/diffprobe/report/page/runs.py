"""The page of runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.report.page.captions import captioned
from diffprobe.report.page.page import Page

if TYPE_CHECKING:
    from diffprobe.probes.comparisons import Comparison
    from diffprobe.studies.run_comparison import RunScore, SettingRow


def runs_page(
    folders: Mapping[str, Path],
    headlines: Sequence[RunScore],
    differences: Sequence[Comparison],
    settings: Sequence[SettingRow],
    verdict: Sequence[str],
    figures: Mapping[str, Path],
) -> Page:
    """All but how to reproduce it; `folders` are the runs by name."""
    tables = {"scores": headlines, "differences on the same images": differences, "settings that differ": settings}
    return Page(
        title=f"{len(folders)} runs side by side",
        asked=[(name, str(folder)) for name, folder in folders.items()],
        verdict=verdict,
        tables={name: rows for name, rows in tables.items() if rows},
        figures=captioned(figures),
    )

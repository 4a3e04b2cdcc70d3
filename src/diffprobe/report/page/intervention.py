"""The page of an intervention: does the image follow the edit?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.report.page.asked import asked
from diffprobe.report.page.captions import captioned
from diffprobe.report.page.page import Page

TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")

if TYPE_CHECKING:
    from diffprobe.studies.intervention import InterventionFindings


def intervention_page(
    config: Mapping[str, Any], found: InterventionFindings, verdict: Sequence[str], figures: Mapping[str, Path]
) -> Page:
    """All but how to reproduce it."""
    return Page(
        title=f"Intervening in {config['model']['path']}",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={"gains": found.gains, "scores": found.summaries},
        figures=captioned(figures),
    )

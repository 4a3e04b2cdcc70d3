"""The page of a classification: when the right class is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.report.class_figures import ClassExample
from diffprobe.report.page.asked import asked
from diffprobe.report.page.captions import captioned
from diffprobe.report.page.page import Example, Film, Page

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary
    from diffprobe.studies.classification import StableRow

TOPICS = ("analysis", "model", "data", "steps", "classifier", "seed")


def classification_page(
    config: Mapping[str, Any],
    summaries: Sequence[Summary],
    stable: Sequence[StableRow],
    verdict: Sequence[str],
    figures: Mapping[str, Path],
    examples: Sequence[ClassExample],
) -> Page:
    """All but how to reproduce it."""
    return Page(
        title=f"Classes in {config['model']['path']}, step by step",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={"scores": summaries, "first stable step of each image": stable},
        figures=captioned(figures),
        examples=[Example(each.prompt, each.steps, {"decoded image": Film(each.images)}) for each in examples],
    )

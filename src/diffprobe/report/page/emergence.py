"""The page of probes held against image models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.report.emergence_grid import EmergenceExample
from diffprobe.report.page.asked import asked
from diffprobe.report.page.captions import captioned
from diffprobe.report.page.page import Example, Page
from diffprobe.report.page.probing import map_film, slider_example

TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary
    from diffprobe.studies.leads import Lead


def emergence_page(
    config: Mapping[str, Any],
    summaries: Sequence[Summary],
    leads: Sequence[Lead],
    verdict: Sequence[str],
    figures: Mapping[str, Path],
    examples: Sequence[EmergenceExample],
) -> Page:
    """All but how to reproduce it."""
    return Page(
        title=f"Probes against image models in {config['model']['path']}",
        asked=asked(config, TOPICS),
        verdict=verdict,
        tables={"leads": leads, "scores": summaries},
        figures=captioned(figures),
        examples=[_example(each) for each in examples],
    )


def _example(example: EmergenceExample) -> Example:
    """The slider of the probes, with what the image models say beside it."""
    shown = slider_example(example.probes)
    maps = {
        f"{name}: image model": map_film(name, values, example.probes.labels[name])
        for name, values in example.image_models.items()
    }
    return replace(shown, films={**shown.films, **maps})

"""What `analysis=emergence` leaves in its run folder, prints, and hands to its tracker.

The figures of `analysis=emergence`.

The page of probes held against image models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from omegaconf import OmegaConf

from diffprobe.analyses.emergence.figures import EmergenceExample, emergence_curves, emergence_grid
from diffprobe.analyses.emergence.tables import Told
from diffprobe.analyses.probing.page import map_film, slider_example
from diffprobe.probes.summaries import summary_rows
from diffprobe.report.html.asked import asked
from diffprobe.report.page.page import Example, Page, captioned
from diffprobe.report.style import save_figure

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.analyses.emergence.analysis import EmergenceFindings
    from diffprobe.analyses.emergence.figures import EmergenceExample
    from diffprobe.analyses.emergence.image_models import Seen
    from diffprobe.analyses.emergence.leads import Lead
    from diffprobe.analyses.emergence.tables import Told
    from diffprobe.cli.analysis_schema import AnalysisJobSettings
    from diffprobe.probes.comparisons import Comparison
    from diffprobe.report.choices import Choice
    from diffprobe.report.tracking import Tracker


def draw_emergence_figures(
    folder: Path, summaries: pd.DataFrame, told: Sequence[Told], examples: Sequence[EmergenceExample] = ()
) -> dict[str, Path]:
    """Writes the score curves and, of every example, a grid of some steps and one of all, as PNG and PDF.

    Returns:
        The PNG files by figure name: emergence, example_1, example_1_all_steps ...
    """
    figures = {"emergence": emergence_curves(summaries, told)}
    for number, example in enumerate(examples, 1):
        figures[f"example_{number}"] = emergence_grid(example)
        figures[f"example_{number}_all_steps"] = emergence_grid(example, example.probes.steps)
    return {name: save_figure(figure, folder, name)["png"] for name, figure in figures.items()}


TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def emergence_page(
    config: Mapping[str, Any],
    summaries: pd.DataFrame,
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
        tables={"leads": leads, "scores": summary_rows(summaries)},
        figures=captioned(figures),
        examples=[_emergence_example(each) for each in examples],
    )


def _emergence_example(example: EmergenceExample) -> Example:
    """The slider of the probes, with what the image models say beside it."""
    shown = slider_example(example.probes)
    maps = {
        f"{name}: image model": map_film(name, values, example.probes.labels[name])
        for name, values in example.image_models.items()
    }
    return replace(shown, films={**shown.films, **maps})


def leave(
    captions: Sequence[str],
    findings: EmergenceFindings,
    settings: AnalysisJobSettings,
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> None:
    """Writes the run folder, prints the closing table and the verdict, hands all to the tracker."""
    from diffprobe.analyses.emergence.leads import Lead, find_leads
    from diffprobe.analyses.emergence.tables import (
        emergence_lines,
        emergence_text,
        print_emergence,
        tell,
        write_emergence_tables,
    )
    from diffprobe.probes.comparisons import write_comparisons
    from diffprobe.probes.score_table import write_scores
    from diffprobe.probes.storage import save_bank
    from diffprobe.probes.summaries import summarise, write_summary
    from diffprobe.report.choices import choose
    from diffprobe.report.page.writing import write_page
    from diffprobe.report.results import curve_scalars
    from diffprobe.runs.environment import reproduce
    from diffprobe.tables import write_rows
    from diffprobe.writing import write_text

    scores, seed = findings.scores, settings.seed
    summaries = summarise(scores)
    choices = choose(summaries, scores, fraction=settings.analysis.fractions[0])
    leads = find_leads(scores, list(settings.analysis.fractions))
    differences = _differences(scores, choices, findings.probed.bank.steps, seed)
    told = tell(choices, leads, differences)
    tables = [write_scores(folder, scores), *(folder / f"{name}.csv" for name in ("summary", "leads", "comparisons"))]
    write_summary(tables[1], summaries)
    write_rows(tables[2], Lead, leads)
    write_comparisons(tables[3], differences)
    tables += write_emergence_tables(folder / "tables", summaries, told)
    probes = save_bank(findings.probed.bank, folder / "probes")
    steps = findings.probed.bank.steps
    examples = [_example(seen, steps, captions[seen.row], told) for seen in findings.seen]
    figures = draw_emergence_figures(folder / "figures", summaries, told, examples)
    write_text(folder / "report.txt", emergence_text(summaries, told))
    config: Any = OmegaConf.to_container(settings, resolve=True)
    page = emergence_page(config, summaries, leads, emergence_lines(summaries, told), figures, examples)
    write_page(folder, replace(page, reproduce=reproduce(folder, {"seed": seed})))
    rows = {"summary": summary_rows(summaries), "leads": leads, "comparisons": differences}
    curves = curve_scalars(summaries, choices)
    tracker.log_tables(rows, figures, {"tables": tables, "probes": probes}, curves)
    print_emergence(summaries, told, console)
    console.print(tracker.describe(), soft_wrap=True)


def _differences(scores: pd.DataFrame, choices: list[Choice], steps: Sequence[int], seed: int) -> list[Comparison]:
    """By how much each best layer's probe is above the image model at every step, on the same images."""
    from diffprobe.analyses.emergence.image_models import IMAGE_MODEL
    from diffprobe.probes.comparisons import Key, compare

    found = []
    for choice in choices:
        pairs = [
            (
                Key(choice.model, choice.best, step, choice.probe),
                Key(choice.model, IMAGE_MODEL, step, choice.probe, IMAGE_MODEL),
            )
            for step in steps
        ]
        found += compare(scores, pairs, property=choice.property, metric=choice.metric, family=IMAGE_MODEL, seed=seed)
    return found


def _example(seen: Seen, steps: Sequence[int], prompt: str, told: Sequence[Told]) -> EmergenceExample:
    """What the best layers' probes and the image models say of one test image, step by step."""
    from diffprobe.analyses.emergence.figures import EmergenceExample
    from diffprobe.report.example import PredictionExample

    layers = {one.choice.property: one.choice.best for one in told}
    probes = PredictionExample(
        title=prompt,
        steps=tuple(steps),
        images=seen.steps.permute(0, 2, 3, 1).numpy(),
        predictions={name: seen.probes[name][layer].numpy() for name, layer in layers.items()},
        labels={name: seen.labels[name].numpy() for name in layers},
        final=seen.final.permute(1, 2, 0).numpy(),
    )
    return EmergenceExample(probes, {name: seen.image_models[name].numpy() for name in layers})

"""What `analysis=emergence` leaves in its run folder, prints, and hands to its tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.doors.analysis_schema import AnalysisJobSettings
    from diffprobe.doors.emerging import EmergenceFindings
    from diffprobe.probes.comparisons import Comparison
    from diffprobe.probes.tables import Score
    from diffprobe.report.choices import Choice
    from diffprobe.report.emergence_grid import EmergenceExample
    from diffprobe.report.emergence_verdict import Told
    from diffprobe.report.tracking import Tracker
    from diffprobe.studies.image_models import Seen


def leave(
    captions: Sequence[str],
    findings: EmergenceFindings,
    settings: AnalysisJobSettings,
    folder: Path,
    tracker: Tracker,
    console: Console,
) -> None:
    """Writes the run folder, prints the closing table and the verdict, hands all to the tracker."""
    from diffprobe.probes.comparisons import write_comparisons
    from diffprobe.probes.storage import save_bank
    from diffprobe.probes.summaries import summarise
    from diffprobe.probes.tables import write_scores, write_summary
    from diffprobe.report.choices import choose
    from diffprobe.report.emergence_folder import draw_emergence_figures
    from diffprobe.report.emergence_tables import emergence_text, print_emergence, write_emergence_tables
    from diffprobe.report.emergence_verdict import emergence_lines, tell
    from diffprobe.report.files import write_text
    from diffprobe.report.page.emergence import emergence_page
    from diffprobe.report.page.reproduce import reproduce
    from diffprobe.report.page.writing import write_page
    from diffprobe.report.results import curve_scalars
    from diffprobe.studies.leads import Lead, find_leads
    from diffprobe.tables import write_rows

    scores, seed = findings.scores, settings.seed
    summaries = summarise(scores)
    choices = choose(summaries, scores, fraction=settings.analysis.fractions[0])
    leads = find_leads(scores, list(settings.analysis.fractions))
    differences = _differences(scores, choices, findings.probed.bank.steps, seed)
    told = tell(choices, leads, differences)
    tables = [folder / f"{name}.csv" for name in ("scores", "summary", "leads", "comparisons")]
    write_scores(tables[0], scores)
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
    rows = {"summary": summaries, "leads": leads, "comparisons": differences}
    curves = curve_scalars(summaries, choices)
    tracker.log_tables(rows, figures, {"tables": tables, "probes": probes}, curves)
    print_emergence(summaries, told, console)
    console.print(tracker.describe(), soft_wrap=True)


def _differences(scores: list[Score], choices: list[Choice], steps: Sequence[int], seed: int) -> list[Comparison]:
    """By how much each best layer's probe is above the image model at every step, on the same images."""
    from diffprobe.probes.comparisons import Key, compare
    from diffprobe.studies.image_models import IMAGE_MODEL

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
    from diffprobe.report.emergence_grid import EmergenceExample
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

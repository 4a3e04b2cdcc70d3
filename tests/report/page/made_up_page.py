"""A page with one of everything, of a made-up run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffprobe.analyses.probing.figures import draw_figures
from diffprobe.analyses.probing.page import probing_page
from diffprobe.report.page.page import Page
from tests.reference.score_rows import summary_table
from tests.report.made_up_run import LAYERS, make_choices, make_comparison, make_example, make_summaries


def make_page(folder: Path) -> Page:
    summaries, choices, examples = make_summaries(), make_choices(), [make_example(), make_example()]
    maps = {name: dict.fromkeys(LAYERS, films) for name, films in examples[0].predictions.items()}
    comparisons = [make_comparison("permuted", 0.3), make_comparison("position", 0.01)]
    figures = draw_figures(folder / "figures", summary_table(summaries), choices)
    page = probing_page({}, summary_table(summaries), choices, comparisons, figures, examples, maps)
    return replace(page, asked=[("model", "pocket <b>& co</b>")], reproduce=[("command", "python train.py 'a=\"b\"'")])

"""The tables and figures of an analysis of objects, made from its tables alone (pictures and shapes from what is
given with them)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from diffprobe.report.drift_curves import CHANGES, FRAME_GAP, drift_curves, video_curves
from diffprobe.report.findings import Finding, grouped_findings
from diffprobe.report.paper_table import write_table
from diffprobe.report.retrieval_grid import RetrievalExample, retrieval_grid
from diffprobe.report.separation_heatmap import separation_heatmap
from diffprobe.report.separation_tables import SHAPES, paper_tables
from diffprobe.report.set_distributions import set_distributions
from diffprobe.report.style import save_figure

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.prototypes.histograms import SetHistogram
    from diffprobe.prototypes.tables import DriftRow


def write_separation_tables(
    folder: Path, found: Sequence[Finding], dataset: str, published: bool, shapes: Sequence[str] = SHAPES
) -> dict[str, dict[str, Path]]:
    """Writes the tables as CSV, Markdown and LaTeX; the paths by shape and format. Arguments as `paper_tables`."""
    tables = paper_tables(found, dataset, published, shapes)
    return {shape: write_table(folder, shape, table) for shape, table in tables.items()}


def draw_separation_figures(
    folder: Path,
    found: Sequence[Finding],
    histograms: Sequence[SetHistogram] = (),
    drift: Sequence[DriftRow] = (),
    examples: Sequence[RetrievalExample] = (),
    layers: Sequence[Layer] = (),
) -> dict[str, Path]:
    """Writes what there is to draw as PNG and PDF: distributions.., separation.. (of several layers or steps), drift..
    and video.., retrieval. What there are several of carries model, measure, layer or step in its name.

    Returns:
        The PNG files by figure name.
    """
    figures: dict[str, Figure] = {}
    several_steps = len({item.step for item in histograms}) > 1
    for measure, step in dict.fromkeys((item.measure, item.step) for item in histograms):
        own = [item for item in histograms if (item.measure, item.step) == (measure, step)]
        figures[f"distributions_{measure}{f'_step{step + 1}' * several_steps}"] = set_distributions(own)
    for group, members in grouped_findings(found).items():
        if len(members) > 1 and any(item.test("auc", "scdi", "dcdi") for item in members):
            figures["_".join(["separation", *group.split(", ")]).rstrip("_")] = separation_heatmap(members, layers)
    figures |= _drift_figures(drift)
    if examples:
        figures["retrieval"] = retrieval_grid(examples)
    files = {name.replace("/", "-"): figure for name, figure in figures.items()}
    return {name: save_figure(figure, folder, name)["png"] for name, figure in files.items()}


def _drift_figures(drift: Sequence[DriftRow]) -> dict[str, Figure]:
    figures = {}
    for key in dict.fromkeys((row.model, row.layer, row.step, row.measure) for row in drift):
        rows = [row for row in drift if (row.model, row.layer, row.step, row.measure) == key]
        model, layer, step, measure = key
        name = f"{model}_{layer}_step{step + 1}_{measure}"
        if any(row.change in CHANGES for row in rows):
            figures[f"drift_{name}"] = drift_curves(rows)
        if any(row.change == FRAME_GAP for row in rows):
            figures[f"video_{name}"] = video_curves(rows)
    return figures

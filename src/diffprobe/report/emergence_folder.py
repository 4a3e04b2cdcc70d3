"""The figures of `analysis=emergence`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffprobe.report.emergence_curves import emergence_curves
from diffprobe.report.emergence_grid import EmergenceExample, emergence_grid
from diffprobe.report.emergence_verdict import Told
from diffprobe.report.style import save_figure

if TYPE_CHECKING:
    from diffprobe.probes.tables import Summary


def draw_emergence_figures(
    folder: Path, summaries: Sequence[Summary], told: Sequence[Told], examples: Sequence[EmergenceExample] = ()
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

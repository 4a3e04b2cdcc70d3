"""One look for every figure: readable at the width of a paper's column, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from diffprobe.report.files import replacing

SINGLE_COLUMN = 3.3  # inches
DOUBLE_COLUMN = 7.0

# Okabe and Ito, "Color Universal Design" (2008)
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#7F7F7F"

SEQUENTIAL = "viridis"  # even in lightness, so that it also reads in grey and with any colour vision

_SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.titlesize": 8,
    "figure.facecolor": "white",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,  # text stays text in the PDF
    "text.parse_math": False,  # names and prompts may hold dollar signs
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this (also as a decorator): the settings hold here and are as before afterwards.

    Figures are `matplotlib.figure.Figure` objects without pyplot, so no backend is chosen and no window opens.
    """
    with matplotlib.rc_context(_SETTINGS):
        yield


@style()
def save_figure(figure: Figure, folder: Path, name: str) -> dict[str, Path]:
    """Writes `name`.png (200 dpi) and `name`.pdf into the folder, each in one move.

    Returns:
        The two paths by format: {'png': ..., 'pdf': ...}.
    """
    # Without the dates, the same figure is the same file.
    options = {"png": {"dpi": 200}, "pdf": {"metadata": {"CreationDate": None}}}
    paths = {kind: Path(folder) / f"{name}.{kind}" for kind in options}
    for kind, path in paths.items():
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, **options[kind])
    return paths

"""One look for every figure, readable at the width of a paper's column and by the colour-blind; curves and cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.backbone.layers import short_names
from diffprobe.files import NO_STEP, replacing
from diffprobe.properties.metrics import metric_named
from diffprobe.report.choices import control_name, metric_name, or_nan
from diffprobe.report.wording import direction

if TYPE_CHECKING:
    from diffprobe.backbone.layers import Layer
    from diffprobe.probes.summaries import Summary

SINGLE_COLUMN = 3.3  # inches
DOUBLE_COLUMN = 7.0

# Okabe and Ito, "Color Universal Design" (2008)
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY = "#7F7F7F"

PANELS = 4  # of curves, side by side
SEQUENTIAL = "viridis"  # even in lightness, so that it also reads in grey and with any colour vision


def colours_of(metric: str) -> str:
    """The colour map of a metric's values: the better, the lighter."""
    return SEQUENTIAL if metric_named(metric).higher_is_better else f"{SEQUENTIAL}_r"


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


# Draw inside `style()` (also as a decorator): the settings hold there and are as before afterwards. Figures are
# `matplotlib.figure.Figure` objects without pyplot, so no backend is chosen and no window opens.
style = partial(matplotlib.rc_context, _SETTINGS)


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
        figure.set_layout_engine("none")  # the places found for the first format hold for the next
    return paths


BEST_LABEL = "best layer on validation"
HEADLINE_LABEL = "the papers' layer"


@dataclass(frozen=True)
class CurveStyle:
    """Colour, dashes and marker of one curve, and how strong the band of its interval is."""

    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str
    band: float = 0.13


BEST_STYLE = CurveStyle(VERMILION, "-", "o", band=0.2)
HEADLINE_STYLE = CurveStyle(BLUE, "--", "D", band=0.2)
# Okabe and Ito's colours as far as they go, then two of Paul Tol's muted ones (personal.sron.nl/~pault, 2021)
CONTROL_STYLES = {
    "permuted": CurveStyle(GREEN, "-.", "s"),
    "fresh": CurveStyle(SKY, (0, (4, 1, 1, 1, 1, 1)), "^"),
    "latent": CurveStyle(PURPLE, (0, (3, 1)), "v"),
    "decoder": CurveStyle("#999933", (0, (5, 2)), "P"),
    "pixels": CurveStyle(BLACK, (0, (1, 1)), "x"),
    "labels": CurveStyle("#882255", (0, (6, 1, 1, 1)), "*"),
    "position": CurveStyle(GREY, ":", "", band=0.25),
    "image_model": CurveStyle("#332288", (0, (8, 2)), "d"),
}
OTHER_STYLE = CurveStyle("#44AA99", (0, (2, 2)), "<")  # a control without a look of its own


def draw_curve(axes: Axes, at: Sequence[float], rows: Sequence[Any], label: str, curve_style: CurveStyle) -> None:
    """`mean` of the rows over `at` as a line, `low` to `high` as a band; nothing without rows."""
    if not rows:
        return
    low, mean, high = ([or_nan(getattr(row, field)) for row in rows] for field in ("low", "mean", "high"))
    axes.fill_between(at, low, high, color=curve_style.colour, alpha=curve_style.band, linewidth=0)
    axes.plot(
        at, mean, color=curve_style.colour, linestyle=curve_style.dashes, marker=curve_style.marker, markersize=2.8,
        markeredgewidth=0.6, label=label,
    )  # fmt: skip


def draw_level(axes: Axes, row: Any, label: str, curve_style: CurveStyle) -> None:
    """A row (mean, low, high) that holds everywhere, as a horizontal line and band; nothing without a score."""
    if row is None or math.isnan(or_nan(row.mean)):
        return
    axes.axhspan(or_nan(row.low), or_nan(row.high), color=curve_style.colour, alpha=curve_style.band, linewidth=0)
    axes.axhline(or_nan(row.mean), color=curve_style.colour, linestyle=curve_style.dashes, label=label)


def draw_over_steps(axes: Axes, rows: Sequence[Summary], label: str, curve_style: CurveStyle) -> None:
    """Scores over their steps, counted from 1; the score of a control without steps as a level."""
    if rows and rows[0].step == NO_STEP:
        draw_level(axes, rows[0], label, curve_style)
    else:
        draw_curve(axes, [row.step + 1 for row in rows], rows, label, curve_style)


def draw_control(axes: Axes, rows: Sequence[Summary], control: str) -> None:
    """A control's scores over the steps, in its own colour."""
    draw_over_steps(axes, rows, control_name(control), CONTROL_STYLES.get(control, OTHER_STYLE))


def draw_step(axes: Axes, step: int, low: int | None, high: int | None, label: str, curve_style: CurveStyle) -> None:
    """A vertical line at a step (from 0), its interval as a shade; without `high` that ends at the panel's edge."""
    if low not in (None, NO_STEP):
        # Half a step on either side, so that an interval of one step is seen too.
        end = axes.get_xlim()[1] if high in (None, NO_STEP) else high + 1.5
        axes.axvspan(low + 0.5, end, color=curve_style.colour, alpha=0.15, linewidth=0, zorder=0)
    axes.axvline(step + 1, color=curve_style.colour, linestyle=curve_style.dashes, linewidth=1, zorder=1, label=label)


def curve_panels(count: int, xlabel: str = "denoising step") -> tuple[Figure, Sequence[Axes]]:
    """A figure of `count` panels for curves of scores, at most `PANELS` side by side."""
    rows = -(-count // PANELS)
    width, height = (SINGLE_COLUMN, 2.4) if count == 1 else (DOUBLE_COLUMN, 2.2 * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    if xlabel:
        figure.supxlabel(xlabel, fontsize=8)
    columns = -(-count // rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for empty in panels[count:]:
        empty.remove()
    return figure, list(panels[:count])


def label_scores(axes: Axes, metric: str, steps: Sequence[int] = ()) -> None:
    """Names the metric and shows its whole range, of errors that from 0, so that panels can be compared; ticks at some
    of the steps."""
    known = metric_named(metric)
    if known.higher_is_better:
        axes.set(ylabel=known.label, ylim=(min(0.0, axes.get_ylim()[0]), 1.02))
    else:
        axes.set(ylabel=f"{known.label}\n(lower is better)", ylim=(0.0, axes.get_ylim()[1]))
    if steps:
        axes.set(xlim=(steps[0] + 0.5, steps[-1] + 1.5), xticks=[step + 1 for step in spread_ticks(steps)])


def shared_legend(figure: Figure, columns: int | None = None) -> None:
    """One legend above all panels, every label once, with space made for its lines; three columns above several."""
    columns = columns or (1 if len(figure.axes) == 1 else 3)
    handles = {}
    for axes in figure.axes:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    lines = math.ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + 0.15 * lines)
    figure.legend(
        handles=list(handles.values()), labels=list(handles), loc="outside upper center", ncols=columns, handlelength=3
    )


def spread_ticks(steps: Sequence[int]) -> Sequence[int]:
    """At most eight of the steps, evenly, the first always among them."""
    return steps[:: math.ceil(len(steps) / 8)]


def draw_cells(
    values: np.ndarray, names: Sequence[str], steps: Sequence[int], metric: str, layers: Sequence[Layer] = ()
) -> tuple[Figure, Axes]:
    """A heat map of values [layers, steps] with a colour bar; the better, the lighter. Cells without a value (NaN) are
    hatched.

    Args:
        metric: what the values are, by its name; or another text.
        layers: give the resolutions of those with their names.
    """
    width, height = SINGLE_COLUMN if len(steps) <= 20 else DOUBLE_COLUMN, 0.145 * max(8, len(names))
    figure = Figure(figsize=(width, height + 1.1), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set(facecolor="0.92", hatch="/////", edgecolor="0.65")  # shows through where there is no value
    colours = colours_of(metric)
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=colours, edgecolors="white", linewidth=0.3)
    bar = figure.colorbar(mesh, ax=axes, pad=0.4 / width, fraction=0.06, aspect=height / 0.09)
    bar.set_label(metric_name(metric) + direction(metric).replace(" (", "\n("))
    bar.outline.set_visible(False)
    short = short_names(names)
    sizes = {layer.name: f"{layer.height}\N{MULTIPLICATION SIGN}{layer.width}" for layer in layers}
    axes.set_yticks(np.arange(len(names)) + 0.5, [f"{short[name]}  {sizes.get(name, '')}".strip() for name in names])
    shown = [step for step in spread_ticks(steps) if step != NO_STEP]
    axes.set_xticks([steps.index(step) + 0.5 for step in shown], [str(step + 1) for step in shown])
    axes.tick_params(length=0)
    axes.invert_yaxis()  # the network's input on top
    axes.spines[:].set_visible(False)
    axes.set_xlabel("denoising step")
    return figure, axes


# The four sets of pairs, and objects against themselves.
SET_LABELS = {
    "scsi": "same class, same image (scsi)",
    "scdi": "same class, different images (scdi)",
    "dcsi": "different classes, same image (dcsi)",
    "dcdi": "different classes, different images (dcdi)",
    "self": "an object and itself, changed",
    "other": "an object and another instance",
}
# Blue tones: same class; red tones: different classes. Light and dashed: within one image.
SET_STYLES = {
    "scsi": CurveStyle(SKY, (0, (3, 1)), "^"),
    "scdi": CurveStyle(BLUE, (0, (5, 2)), "s"),
    "dcsi": CurveStyle(ORANGE, (0, (1, 1)), "v"),
    "dcdi": CurveStyle(VERMILION, "-.", "D"),
    "self": CurveStyle(BLACK, "-", "o", band=0.2),
    "other": CurveStyle(PURPLE, "--", "P"),
}

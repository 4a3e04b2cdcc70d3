"""What interventions look like: images before and after as in the papers, scores, and an animation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.report.choices import METRIC_NAMES, or_nan
from diffprobe.report.numbers import is_number
from diffprobe.report.style import BLUE, COLOUR_MAPS, DOUBLE_COLUMN, GREY, ORANGE, SINGLE_COLUMN, VERMILION, style

if TYPE_CHECKING:
    from diffprobe.analyses.intervention.tables import InterventionSummary


METHOD_NAMES = {
    "minimum_norm": "minimum norm",
    "pattern": "pattern",
    "steering": "steering",
    "gradient": "gradient descent",
}
BAR_STYLES = {  # label, colour and hatch of each bar
    "unedited": ("no intervention", GREY, ""),
    "random": ("random direction", ORANGE, "///"),
    "none": ("edited", BLUE, ""),
}
LARGE = 3  # pixels of an animation for one of a small picture


@dataclass(frozen=True)
class EditedExample:
    """One image before and after: pictures [H, W, 3] in [0, 1], maps [H, W]; `edited` and their labels by method."""

    original: np.ndarray
    label: np.ndarray
    target: np.ndarray
    edited: Mapping[str, np.ndarray]
    edited_labels: Mapping[str, np.ndarray]


@style()
def intervention_grid(examples: Sequence[EditedExample], name: str) -> Figure:
    """The papers' rows, a column an image: original, its label, the target, and for each method the new image and its
    label, with the target's outline where it is a mask.

    Raises:
        UserError: there is no example.
    """
    if not examples:
        raise UserError("no edited image to draw")
    methods = list(examples[0].edited)
    rows = ["original", "its label", "target"]
    for method in methods:
        rows += [f"edited:\n{METHOD_NAMES[method]}", "its label"]
    side = DOUBLE_COLUMN / max(len(examples), 6)
    figure = Figure(figsize=(side * len(examples) + 0.5, side * len(rows)), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[union-attr]
    panels = figure.subplots(len(rows), len(examples), squeeze=False)
    for column, example in zip(panels.T, examples, strict=True):
        _picture(column[0], example.original)
        _map(column[1], example.label, example, name)
        _map(column[2], example.target, example, name)
        for place, method in enumerate(methods):
            _picture(column[3 + 2 * place], example.edited[method], example.target if name == "saliency" else None)
            _map(column[4 + 2 * place], example.edited_labels[method], example, name)
    for axes, label in zip(panels[:, 0], rows, strict=True):
        axes.set_ylabel(label)
    return figure


@style()
def intervention_scores(summaries: Sequence[InterventionSummary], metric: str) -> Figure:
    """One group of bars a method: the metric against the target without intervention, after a random edit and after
    the edit, with 95 % intervals over images.

    Raises:
        UserError: there are no such rows.
    """
    rows = {(row.method, row.control): row for row in summaries if row.metric == metric and is_number(row.mean)}
    methods = list(dict.fromkeys(method for method, _ in rows))
    if not methods:
        raise UserError(f"no {metric} of an intervention to draw")
    figure = Figure(figsize=(SINGLE_COLUMN, 2.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(BAR_STYLES)
    for place, (control, (label, colour, hatch)) in enumerate(BAR_STYLES.items()):
        own = [rows[method, control] for method in methods]
        at = [group + (place - 1) * width for group in range(len(methods))]
        mean, low, high = (np.array([or_nan(getattr(row, key)) for row in own]) for key in ("mean", "low", "high"))
        errors = np.stack([mean - low, high - mean]).clip(min=0)
        axes.bar(at, mean, 0.92 * width, color=colour, hatch=hatch, label=label, edgecolor="black", linewidth=0.4)
        axes.errorbar(at, mean, errors, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    axes.set_xticks(range(len(methods)), [METHOD_NAMES[method] for method in methods])
    axes.set_ylabel(f"{METRIC_NAMES.get(metric, metric)} with the target")
    figure.legend(loc="outside upper center", ncols=len(BAR_STYLES), handlelength=1.4, columnspacing=1.0)
    return figure


def animation_frames(images: np.ndarray, targets: np.ndarray, name: str) -> np.ndarray:
    """The target map beside the image made for it, [frames, H, W, 3] in [0, 255].

    Args:
        images: [frames, h, w, 3] in [0, 1]. targets: [frames, h, w]. name: the property.
    """
    import matplotlib

    low, high = targets.min(), targets.max()
    maps = matplotlib.colormaps[COLOUR_MAPS.get(name, "viridis")]((targets - low) / max(high - low, 1e-9))[..., :3]
    gap = np.ones((*images.shape[:2], max(images.shape[2] // 16, 1), 3))
    both = np.concatenate([maps, gap, images], 2)
    times = LARGE if images.shape[1] < 256 else 1
    return (both * 255).round().clip(0, 255).astype(np.uint8).repeat(times, 1).repeat(times, 2)


def _picture(axes: Axes, picture: np.ndarray, target: np.ndarray | None = None) -> None:
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    if target is not None and 0 < target.mean() < 1:
        for colour, breadth in (("white", 1.6), (VERMILION, 0.8)):  # seen on dark and on light
            axes.contour(target, [0.5], colors=colour, linewidths=breadth)
    _bare(axes)


def _map(axes: Axes, values: np.ndarray, example: EditedExample, name: str) -> None:
    low, high = (0.0, 1.0) if name == "saliency" else np.percentile(example.label, [2, 98])
    axes.imshow(values, cmap=COLOUR_MAPS.get(name, "viridis"), vmin=low, vmax=high, interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)

"""What is reported of an intervention: does the image follow the edit?

The closing table of an intervention and its verdict in sentences.

What interventions look like: images before and after as in the papers, scores, and an animation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from diffprobe.analyses.intervention.tables import InterventionGain, InterventionScore, InterventionSummary
from diffprobe.errors import UserError
from diffprobe.probes.bank import save_bank
from diffprobe.report.choices import METRIC_NAMES, or_nan
from diffprobe.report.report import Animation, Plot, Report, Table
from diffprobe.report.style import BLUE, COLOUR_MAPS, DOUBLE_COLUMN, GREY, ORANGE, SINGLE_COLUMN, VERMILION, style
from diffprobe.report.wording import interval, is_number, rounded
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import SIGNIFICANT

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.analyses.intervention.tables import InterventionGain, InterventionSummary
    from diffprobe.analyses.intervention.trials import InterventionExample, InterventionResults
    from diffprobe.probes.bank import ProbeBank


COLUMNS = {  # what tables call each metric that there may be, in this order
    "dice": "Dice with\nthe target",
    "spearman": "rank correlation\nwith the target",
    "dice_source": "Dice with\nits old label",
    "pixels_outside": "pixels changed\noutside",
    "pixels": "pixels\nchanged",
    "prompt": "prompt\nagreement",
}
HEADLINES = ("dice", "spearman")


def intervention_table(summaries: Sequence[InterventionSummary]) -> Table:
    """One line a method and control; the means of every metric, with the interval of the one that is judged by."""
    found = {(row.method, row.control, row.metric): row for row in summaries}
    metrics = [name for name in COLUMNS if any(row.metric == name for row in summaries)]
    text = DataFrame(
        [
            {"intervention": METHOD_NAMES[method] if control == "none" else label}
            | {COLUMNS[metric]: _cell(found.get((method, control, metric))) for metric in metrics}
            for method in dict.fromkeys(row.method for row in summaries)
            for control, (label, *_) in BAR_STYLES.items()
        ]
    )
    title = "New images held against the target map, means over images, with 95 % intervals"
    note = "Pixels changed: mean absolute difference in [0, 1] (outside: of old and new region)."
    return Table(text, title, show=["console"], text=text, notes=[note])


def intervention_lines(summaries: Sequence[InterventionSummary], gains: Sequence[InterventionGain]) -> list[str]:
    """One sentence a method: how far the image follows, and by how much more than each control."""
    lines = []
    for row in summaries:
        if row.control != "none" or row.metric not in HEADLINES:
            continue
        own = [gain for gain in gains if (gain.method, gain.metric) == (row.method, row.metric)]
        against = [
            f"{interval(gain.difference, gain.low, gain.high)} against {BAR_STYLES[gain.control][0]}" for gain in own
        ]
        family = sum(gain.metric == row.metric for gain in gains)
        lines.append(
            f"{METHOD_NAMES[row.method]}: {_follows(own, family)} the {row.property} probe ({row.target} of its map): "
            f"{METRIC_NAMES.get(row.metric, row.metric)} with the target {interval(row.mean, row.low, row.high)} over "
            f"{row.n} images, a gain of {' and '.join(against)}."
        )
    return lines


def _follows(gains: Sequence[InterventionGain], family: int) -> str:
    """Whether the gains over all controls are shown, or why that cannot be told; family: how many are tested."""
    needed = images_needed(family)
    fewest = min((gain.n for gain in gains), default=0)
    if fewest < needed:
        return f"no verdict ({fewest} images, it takes {needed}) on whether images follow"
    shown = all(
        is_number(gain.low) and gain.low > 0 and is_number(gain.p_holm) and gain.p_holm <= SIGNIFICANT for gain in gains
    )
    return "images follow" if shown else "images are not shown to follow"


def _cell(row: InterventionSummary | None) -> str:
    if row is None:
        return ""
    return interval(row.mean, row.low, row.high) if row.metric in HEADLINES else rounded(row.mean, 3)


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
        _example_picture(column[0], example.original)
        _map(column[1], example.label, example, name)
        _map(column[2], example.target, example, name)
        for place, method in enumerate(methods):
            _example_picture(
                column[3 + 2 * place], example.edited[method], example.target if name == "saliency" else None
            )
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


def _example_picture(axes: Axes, picture: np.ndarray, target: np.ndarray | None = None) -> None:
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


TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def report(
    model: str, name: str, bank: ProbeBank, found: InterventionResults, animation: tuple[Tensor, Tensor] | None = None
) -> Report:
    """Whether images follow when the probes of the property `name` are made to report another map.

    Args:
        bank: the probes.
        animation: images [frames, 3, H, W] and the maps that they were made for, [frames, H, W].
    """
    figures: dict[str, Plot | Animation] = {
        "intervention_scores": Plot(
            partial(intervention_scores, found.summaries, bank.properties[name].headline),
            "How well the map of the new image agrees with the target, with 95 % intervals: edited, edited at random, "
            "and not edited.",
        )
    }
    if found.examples:
        figures["intervention_examples"] = Plot(
            partial(intervention_grid, [_example(each) for each in found.examples], name),
            "Images, their maps, the maps asked for, and what came of it.",
        )
    if animation is not None:
        images, targets = animation
        figures["intervention"] = Animation(animation_frames(_picture(images), targets.numpy(), name))
    return Report(
        title=f"Intervening in {model}",
        findings=intervention_lines(found.summaries, found.gains),
        topics=TOPICS,
        tables={
            "closing": intervention_table(found.summaries),
            "gains": Table.of(InterventionGain, found.gains),
            "summary": Table.of(InterventionSummary, found.summaries, title="scores"),
            "scores": Table.of(InterventionScore, found.scores, show=["csv", "tracker"]),
        },
        figures=figures,
        artifacts={"probes": partial(save_bank, bank)},
    )


def _example(pictured: InterventionExample) -> EditedExample:
    return EditedExample(
        original=_picture(pictured.original),
        label=pictured.label.numpy(),
        target=pictured.target.numpy(),
        edited={method: _picture(image) for method, image in pictured.edited.items()},
        edited_labels={method: maps.numpy() for method, maps in pictured.edited_labels.items()},
    )


def _picture(images: Tensor) -> np.ndarray:
    """[..., 3, H, W] -> [..., H, W, 3]."""
    return images.movedim(-3, -1).numpy()

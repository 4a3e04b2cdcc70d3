"""What is reported of an intervention: does the image follow the edit? In sentences, scores, pictures, an animation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.analyses.intervention.trials import EDITED, RANDOM, UNEDITED
from diffprobe.errors import UserError
from diffprobe.probes.bank import save_bank
from diffprobe.probes.score_table import select
from diffprobe.report.choices import metric_name
from diffprobe.report.report import Animation, Plot, Report, Table
from diffprobe.report.style import BLUE, DOUBLE_COLUMN, GREY, ORANGE, SINGLE_COLUMN, VERMILION, style
from diffprobe.report.wording import interval, rounded
from diffprobe.statistics.differences import images_needed
from diffprobe.statistics.intervals import SIGNIFICANT

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.analyses.intervention.trials import InterventionExample, InterventionResults
    from diffprobe.probes.bank import ProbeBank
    from diffprobe.properties import Property

COLUMNS = {  # what tables call each metric that there may be, in this order
    "dice": "Dice with\nthe target",
    "spearman": "rank correlation\nwith the target",
    "dice_source": "Dice with\nits old label",
    "pixels_outside": "pixels changed\noutside",
    "pixels": "pixels\nchanged",
    "prompt": "prompt\nagreement",
}
HEADLINES = ("dice", "spearman")
METHOD_NAMES = {
    "minimum_norm": "minimum norm",
    "pattern": "pattern",
    "steering": "steering",
    "gradient": "gradient descent",
}
BAR_STYLES = {  # label, colour and hatch of each bar
    UNEDITED: ("no intervention", GREY, ""),
    RANDOM: ("random direction", ORANGE, "///"),
    EDITED: ("edited", BLUE, ""),
}
LARGE = 3  # pixels of an animation for one of a small picture
TOPICS = ("analysis", "model", "data", "layers", "steps", "property", "labeler", "probe", "seed")


def report(model: str, name: str, bank: ProbeBank, results: InterventionResults) -> Report:
    """Whether images follow when the probes of the property `name` in the bank are made to report another map."""
    figures: dict[str, Plot | Animation] = {
        "intervention_scores": Plot(
            partial(intervention_scores, results.summaries, bank.properties[name].headline),
            "How well the map of the new image agrees with the target, with 95 % intervals: edited, edited at random, "
            "and not edited.",
        )
    }
    if results.examples:
        figures["intervention_examples"] = Plot(
            partial(intervention_grid, results.examples, bank.properties[name]),
            "Images, their maps, the maps asked for, and what came of it.",
        )
    if results.animation is not None:
        images, targets = results.animation
        figures["intervention"] = Animation(animation_frames(_picture(images), targets.numpy(), bank.properties[name]))
    return Report(
        title=f"Intervening in {model}",
        findings=intervention_lines(results.summaries, results.gains),
        topics=TOPICS,
        tables={
            "closing": intervention_table(results.summaries),
            "gains": Table(results.gains),
            "summary": Table(results.summaries, title="scores"),
            "scores": Table(results.scores, show=["csv", "tracker"]),
        },
        figures=figures,
        artifacts={"probes": partial(save_bank, bank)},
    )


def intervention_table(summaries: pd.DataFrame) -> Table:
    """One line a method and control; the means of every metric, with the interval of the one that is judged by."""
    metrics = [name for name in COLUMNS if name in set(summaries["metric"])]
    texts = {}
    for row in summaries.to_dict("records"):
        headline = row["metric"] in HEADLINES
        text = interval(row["mean"], row["low"], row["high"]) if headline else rounded(row["mean"], 3)
        texts[row["method"], row["control"], row["metric"]] = text
    lines = [
        {"intervention": METHOD_NAMES[method] if control == EDITED else label}
        | {COLUMNS[metric]: texts.get((method, control, metric), "") for metric in metrics}
        for method in summaries["method"].unique()
        for control, (label, *_) in BAR_STYLES.items()
    ]
    text = pd.DataFrame(lines)
    title = "New images held against the target map, means over images, with 95 % intervals"
    note = "Pixels changed: mean absolute difference in [0, 1] (outside: of old and new region)."
    return Table(text, title, show=["console"], text=text, notes=[note])


def intervention_lines(summaries: pd.DataFrame, gains: pd.DataFrame) -> list[str]:
    """One sentence a method: how far the image follows, and by how much more than each control."""
    lines = []
    edited = select(summaries, control=EDITED)
    for row in edited[edited["metric"].isin(HEADLINES)].to_dict("records"):
        family = select(gains, metric=row["metric"])
        own = select(family, method=row["method"])
        against = [
            f"{interval(gain['difference'], gain['low'], gain['high'])} against {BAR_STYLES[gain['control']][0]}"
            for gain in own.to_dict("records")
        ]
        needed, fewest = images_needed(len(family)), own["n"].min() if len(own) else 0
        if fewest < needed:
            verdict = f"no verdict ({fewest} images, it takes {needed}) on whether images follow"
        elif ((own["low"] > 0) & (own["p_holm"] <= SIGNIFICANT)).all():
            verdict = "images follow"
        else:
            verdict = "images are not shown to follow"
        method, name, target, metric = (row[key] for key in ("method", "property", "target", "metric"))
        lines.append(
            f"{METHOD_NAMES[method]}: {verdict} the {name} probe ({target} of its map): {metric_name(metric)} with the "
            f"target {interval(row['mean'], row['low'], row['high'])} over {row['n']} images, a gain of "
            f"{' and '.join(against)}."
        )
    return lines


@style()
def intervention_scores(summaries: pd.DataFrame, metric: str) -> Figure:
    """One group of bars a method: the metric against the target without intervention, after a random edit and after
    the edit, with 95 % intervals over images.

    Raises:
        UserError: there are no such rows.
    """
    rows = summaries[(summaries["metric"] == metric) & summaries["mean"].notna()]
    methods = rows["method"].unique().tolist()
    if not methods:
        raise UserError(f"no {metric} of an intervention to draw")
    figure = Figure(figsize=(SINGLE_COLUMN, 2.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(BAR_STYLES)
    for place, (control, (label, colour, hatch)) in enumerate(BAR_STYLES.items()):
        own = select(rows, control=control).set_index("method").loc[methods]
        at = [group + (place - 1) * width for group in range(len(methods))]
        mean, low, high = own[["mean", "low", "high"]].to_numpy().T
        errors = np.stack([mean - low, high - mean]).clip(min=0)
        axes.bar(at, mean, 0.92 * width, color=colour, hatch=hatch, label=label, edgecolor="black", linewidth=0.4)
        axes.errorbar(at, mean, errors, fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    axes.set_xticks(range(len(methods)), [METHOD_NAMES[method] for method in methods])
    axes.set_ylabel(f"{metric_name(metric)} with the target")
    figure.legend(loc="outside upper center", ncols=len(BAR_STYLES), handlelength=1.4, columnspacing=1.0)
    return figure


@style()
def intervention_grid(examples: Sequence[InterventionExample], item: Property) -> Figure:
    """The papers' rows, a column an image: original, its label, the target, and for each method the new image and its
    label, with the target's outline where it is a mask.

    Raises:
        UserError: there is no example.
    """
    if not examples:
        raise UserError("no edited image to draw")
    rows = ["original", "its label", "target"]
    for method in examples[0].edited:
        rows += [f"edited:\n{METHOD_NAMES[method]}", "its label"]
    side = DOUBLE_COLUMN / max(len(examples), 6)
    figure = Figure(figsize=(side * len(examples) + 0.5, side * len(rows)), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[union-attr]
    panels = figure.subplots(len(rows), len(examples), squeeze=False)
    for column, example in zip(panels.T, examples, strict=True):
        outline = example.target.numpy() if item.binary else None
        original, label = example.original
        look = item.picture(label.numpy(), label.numpy())
        colours = {"cmap": look.colours, "vmin": look.low, "vmax": look.high, "interpolation": "nearest"}
        _draw_picture(column[0], _picture(original), None)
        column[1].imshow(label.numpy(), **colours)
        column[2].imshow(example.target.numpy(), **colours)
        for row, (image, labels) in zip(range(3, len(rows), 2), example.edited.values(), strict=True):
            _draw_picture(column[row], _picture(image), outline)
            column[row + 1].imshow(labels.numpy(), **colours)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, label in zip(panels[:, 0], rows, strict=True):
        axes.set_ylabel(label)
    return figure


def _draw_picture(axes: Axes, picture: np.ndarray, target: np.ndarray | None) -> None:
    axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    if target is not None and 0 < target.mean() < 1:
        for colour, breadth in (("white", 1.6), (VERMILION, 0.8)):  # seen on dark and on light
            axes.contour(target, [0.5], colors=colour, linewidths=breadth)


def animation_frames(images: np.ndarray, targets: np.ndarray, item: Property) -> np.ndarray:
    """The target map of a property beside the image made for it, [frames, H, W, 3] in [0, 255].

    Args:
        images: [frames, h, w, 3] in [0, 1].
        targets: [frames, h, w].
    """
    low, high = targets.min(), targets.max()
    colours = matplotlib.colormaps[item.picture(targets, targets).colours or "gray"]
    maps = colours((targets - low) / max(high - low, 1e-9))[..., :3]
    gap = np.ones((*images.shape[:2], max(images.shape[2] // 16, 1), 3))
    both = np.concatenate([maps, gap, images], 2)
    times = LARGE if images.shape[1] < 256 else 1
    return (both * 255).round().clip(0, 255).astype(np.uint8).repeat(times, 1).repeat(times, 2)


def _picture(images: Tensor) -> np.ndarray:
    """[..., 3, H, W] -> [..., H, W, 3]."""
    return images.movedim(-3, -1).numpy()

"""A figure of images beside the maps that a labeler gives them, and the classes that a classifier sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffprobe.errors import UserError
from diffprobe.files import replacing
from diffprobe.properties import Legend, Property
from diffprobe.properties.categorical import Categorical
from diffprobe.report.grid import add_legend, map_frames
from diffprobe.report.style import SKY, style

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.labels.trial import ClassTrial, PropertyTrial

SIDE = 1.9  # inches of a panel
NAME = 30  # characters of an image's name


@style()
def label_figure(
    images: Tensor, names: Sequence[str], trials: Sequence[PropertyTrial], classes: ClassTrial | None = None
) -> Figure:
    """A row an image [3, H, W] in [0, 1]: the image, its map of each property in the colours of reports, its likeliest
    classes."""
    columns = 1 + len(trials) + (classes is not None)
    figure = Figure(figsize=(SIDE * columns, (SIDE + 0.22) * len(images) + 0.3), layout="compressed")
    panels = figure.subplots(len(images), columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        panels[row, 0].imshow(image.permute(1, 2, 0).numpy())
        panels[row, 0].set_xlabel(name if len(name) <= NAME else f"...{name[3 - NAME :]}")
        for axes, trial in zip(panels[row, 1:], trials, strict=False):
            _draw_map(axes, trial.item, trial.maps[row].numpy())
        if classes is not None:
            _draw_classes(panels[row, -1], classes.top[row])
    titles = ["image", *(trial.item.name for trial in trials), *([classes.classifier] if classes else [])]
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(shorten(title, NAME, placeholder="..."))
    add_legend(figure, {trial.item.name: _shown_legend(trial.item, trial.maps.numpy()) for trial in trials})
    return figure


def save_label_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG of 150 dpi in one move. Raises UserError if that fails."""
    try:
        with style(), replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    except OSError as error:
        raise UserError(f"cannot write the picture {path}: {error.strerror}; give another --out") from error


def contents(item: Property, label: np.ndarray) -> str:
    """What a map [H, W], of vectors [channels, H, W], holds: the lowest and the highest value, of masks the share of
    foreground, of classes the three most frequent, in shares of the pixels."""
    if isinstance(item, Categorical):
        numbers, counts = np.unique(label, return_counts=True)
        named = dict(enumerate(item.classes))
        order = np.argsort(-counts, kind="stable")[:3]
        return ", ".join(f"{named.get(int(numbers[at]), 'no class')} {counts[at] / label.size:.0%}" for at in order)
    extent = f"{label.min():.3g} to {label.max():.3g}"
    return f"{extent}, foreground {label.mean():.1%}" if item.binary else extent


def _draw_map(axes: Axes, item: Property, label: np.ndarray) -> None:
    frames = map_frames(item, label[None], label)
    axes.imshow(frames.values[0], cmap=frames.colours, vmin=frames.low, vmax=frames.high, interpolation="nearest")
    axes.set_xlabel(shorten(contents(item, label), 44, placeholder=" ..."), fontsize=6)


def _draw_classes(axes: Axes, top: Sequence[tuple[str, float]]) -> None:
    """Names over bars of their probabilities."""
    axes.barh(range(len(top)), [probability for _, probability in top], color=SKY, height=0.8)
    for place, (name, probability) in enumerate(top):
        axes.text(0.02, place, f"{probability:.2f} {shorten(name.split(',')[0], 26, placeholder='...')}", va="center")
    axes.set(xlim=(0, 1), ylim=(len(top) - 0.5, -0.5), box_aspect=1)


def _shown_legend(item: Property, maps: np.ndarray) -> Legend:
    """Of classes those that are in the maps, since a model may know hundreds."""
    if not isinstance(item, Categorical):
        return item.legend()
    there = set(np.unique(maps).astype(int).tolist())
    return [entry for number, entry in enumerate(item.legend()) if number in there or number >= len(item.classes)]

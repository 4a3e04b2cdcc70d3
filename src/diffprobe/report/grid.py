"""One image as it is denoised, and what probes and image models predict of it at each step, as a figure and as frames.

The figure is figure 1 of Chen, Viégas and Wattenberg (2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from diffprobe.errors import UserError
from diffprobe.properties import Legend, Property
from diffprobe.report.report import Example, Frames, Overlay
from diffprobe.report.style import DOUBLE_COLUMN, VERMILION, style

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.probes.study.study import ExampleImage

PAPER_STEPS = (0, 1, 2, 4, 7, 10, 14)  # steps 1, 2, 3, 5, 8, 11, 15 of 15
WIDE = 8  # steps; with more, only the first has more than its number written over it
NAMED = 24  # classes of a property in a legend; a picture of more has colours twice
NAMES = 0.95  # inches for the names of rows, where these have two lines


@dataclass(frozen=True)
class PredictionExample:
    """Everything one grid shows, of one image.

    Attributes:
        title: the prompt.
        steps: 0-based step of each row of `images` and of the predictions.
        images: [steps, H, W, 3] in [0, 1], decoded after each step.
        items: the properties by name.
        predictions: property -> [steps, h, w]; masks as probabilities, classes as numbers, the others in the unit of
            their label. Vectors are [steps, channels, h, w].
        labels: property -> [H, W], of vectors [channels, H, W]; masks in {0, 1}.
        final: [H, W, 3] in [0, 1], the finished image, which the labels were made from.
        image_models: property -> [steps, H, W], what an image model predicts from `images`; of all properties or none.
    """

    title: str
    steps: tuple[int, ...]
    images: np.ndarray
    items: Mapping[str, Property]
    predictions: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    final: np.ndarray
    image_models: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"images": len(self.images)} | {name: len(maps) for name, maps in self.predictions.items()}
        for name, count in counts.items():
            if count != len(self.steps):
                raise UserError(f"'{name}' of '{self.title}' has {count} steps, but {len(self.steps)} are named")

    @staticmethod
    def of_image(
        image: ExampleImage,
        title: str,
        steps: Sequence[int],
        layers: Mapping[str, str],
        items: Mapping[str, Property],
        image_models: Mapping[str, Tensor] | None = None,
    ) -> PredictionExample:
        """What the probes of `layers`, {property: layer}, say of one test image, and the image models, if any."""
        return PredictionExample(
            title,
            tuple(steps),
            image.steps.permute(0, 2, 3, 1).numpy(),
            {name: items[name] for name in layers},
            {name: image.predictions[name][layer].numpy() for name, layer in layers.items()},
            {name: image.labels[name].numpy() for name in layers},
            image.final.permute(1, 2, 0).numpy(),
            {name: image_models[name].numpy() for name in layers} if image_models else {},
        )


def example_over_steps(example: PredictionExample) -> Example:
    """The decoded and the finished image, and of each property the best layer's probe, label and image model."""
    frames = {"decoded image": Frames(example.images), "finished image": Frames(example.final[None])}
    for name, predicted in example.predictions.items():
        item, label = example.items[name], example.labels[name]
        frames[f"{name}: probe"] = map_frames(item, predicted, label)
        frames[f"{name}: label"] = map_frames(item, label[None], label)
    for name, maps in example.image_models.items():
        frames[f"{name}: image model"] = map_frames(example.items[name], maps, example.labels[name])
    overlays = {
        name: Overlay(predicted, example.labels[name])
        for name, predicted in example.predictions.items()
        if example.items[name].binary
    }
    return Example(example.title, example.steps, frames, overlays)


def map_frames(item: Property, maps: np.ndarray, label: np.ndarray) -> Frames:
    """Maps of a property in its colours, and in the range of their label."""
    picture = item.picture(maps, label)
    return Frames(picture.values, picture.colours or "gray", picture.low, picture.high)


@style()
def prediction_grid(example: PredictionExample, shown: Sequence[int] | None = None) -> Figure:
    """Columns are steps, then the final image over its labels; rows are the decoded image and, for each property, the
    probe and the image model, if there is one.

    Args:
        shown: 0-based steps to show; by default the papers' among those there are, or evenly spread ones.

    Raises:
        UserError: a step to be shown is not in the example.
    """
    steps = list(shown if shown is not None else _default_steps(example.steps))
    missing = [step for step in steps if step not in example.steps]
    if missing:
        raise UserError(f"steps {missing} are not among those of '{example.title}': {list(example.steps)}")
    lines = []
    for name, predicted in example.predictions.items():
        if example.image_models:
            lines += [(name, f"{name}\nprobe", predicted), (name, f"{name}\nimage model", example.image_models[name])]
        else:
            lines.append((name, name, predicted))
    figure, panels = _grid_panels(1 + len(lines), len(steps), NAMES if example.image_models else 0.0)
    figure.suptitle(fill(example.title, 100), parse_math=False)

    rows, wide = [example.steps.index(step) for step in steps], len(steps) > WIDE
    for axes, row, step in zip(panels[0], rows, steps, strict=False):
        axes.set_title(f"{step + 1}" if wide and row != rows[0] else f"step {step + 1}")
        axes.imshow(np.clip(example.images[row], 0, 1))
    panels[0][-1].imshow(np.clip(example.final, 0, 1))
    _name_right(panels[0][-1], "final" if wide else "final image")
    for panel, (name, _, maps) in zip(panels[1:], lines, strict=True):
        _draw_maps(panel, example.items[name], maps[rows], example.labels[name])
    upright = {"rotation": 0, "ha": "right", "va": "center"} if example.image_models else {}
    for panel, label in zip(panels, ["decoded image", *(label for _, label, _ in lines)], strict=True):
        panel[0].set_ylabel(label, **upright)
    add_legend(figure, {name: item.legend() for name, item in example.items.items()})
    return figure


def add_legend(figure: Figure, legends: Mapping[str, Legend]) -> None:
    """Below the panels, what colours of classes mean, of each property as far as they are few."""
    named = {name: legend for name, legend in legends.items() if legend}
    several = len(named) > 1
    handles = [
        Patch(facecolor=colour, edgecolor="0.5", linewidth=0.4, label=f"{name}: {label}" if several else label)
        for name, legend in named.items()
        for label, colour in legend[:NAMED]
    ]
    if handles:
        width, height = figure.get_size_inches()
        columns = max(1, int(width / (1.5 if several else 1.1)))
        figure.set_size_inches(width, height + 0.16 * -(-len(handles) // columns))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=1, handleheight=1)


def _default_steps(steps: Sequence[int]) -> list[int]:
    """The papers' steps if all of them are among the steps, else evenly spread ones."""
    if set(PAPER_STEPS) <= set(steps) and steps[-1] == PAPER_STEPS[-1]:
        return list(PAPER_STEPS)
    spread = np.linspace(0, len(steps) - 1, min(len(steps), len(PAPER_STEPS)))
    return [steps[round(place)] for place in spread]


def _grid_panels(rows: int, steps: int, names: float) -> tuple[Figure, list[list[Axes]]]:
    """[rows][steps + 1] axes without ticks; a narrow gap stands before the last column. `names`: inches at the left."""
    width = min(1.2 * (steps + 1.6), DOUBLE_COLUMN)
    side = (width - names) / (steps + 1.6) * (1.08 if names else 1)
    # 'compressed' is the constrained layout for grids of images of fixed shape
    figure = Figure(figsize=(width, rows * side + 0.5), layout="compressed")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[union-attr]
    places = figure.add_gridspec(rows, steps + 2, width_ratios=[1] * steps + [0.12, 1])
    columns = [*range(steps), steps + 1]
    panels = [[figure.add_subplot(places[row, column]) for column in columns] for row in range(rows)]
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, panels


def _draw_maps(panels: Sequence[Axes], item: Property, maps: np.ndarray, label: np.ndarray) -> None:
    """Predictions and, last, the label, all in one range of colours; where there is a foreground, with its outline."""
    predicted, labelled = map_frames(item, maps, label), map_frames(item, label[None], label)
    height, width = label.shape[-2:]
    for axes, values in zip(panels, [*predicted.values, *labelled.values], strict=True):
        axes.imshow(
            values, cmap=labelled.colours, vmin=labelled.low, vmax=labelled.high,
            extent=(0, width, height, 0), interpolation="nearest",
        )  # fmt: skip
    _name_right(panels[-1], "label")
    if item.binary and 0 < label.mean() < 1:
        for axes in panels[:-1]:
            axes.contour(
                np.arange(width) + 0.5, np.arange(height) + 0.5, label, [0.5], colors=VERMILION, linewidths=0.7
            )


def _name_right(axes: Axes, name: str) -> None:
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(name, rotation=270, va="bottom")

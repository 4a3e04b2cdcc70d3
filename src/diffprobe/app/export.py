"""What the page shows as figures, and as what makes it again: a command and lines of Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from diffprobe.app.curve import COLOURS
from diffprobe.app.equipment import Equipment
from diffprobe.app.pictures import draw_map, draw_outline, draw_step, picture
from diffprobe.app.session import EditedImage, GeneratedImage, scores_over_steps
from diffprobe.report.style import DOUBLE_COLUMN, label_scores, save_figure, style

NAMED = 40  # characters of a prompt in the name of a file
MASK = "mask.png"
CURVE = 1.5  # times as wide as a picture is the panel of the curves


@style()
def draw_view(equipment: Equipment, images: Sequence[GeneratedImage], name: str, layer: str, step: int) -> Figure:
    """Every image after a step (from 0) above what the probe of a property sees there, beside the scores of all steps.

    Raises:
        UserError: the labeler does not know the property, or the probes are of other steps.
    """
    side = min(1.5, DOUBLE_COLUMN / (len(images) + CURVE) - 0.2)
    figure = Figure(figsize=((side + 0.2) * (len(images) + CURVE), 2 * side + 0.8), layout="constrained")
    grid = figure.add_gridspec(2, len(images) + 1, width_ratios=[*[1.0] * len(images), CURVE])
    figure.suptitle(f"{name}, {layer}, step {step + 1}")
    for column, image in enumerate(images):
        above, below = (figure.add_subplot(grid[row, column]) for row in (0, 1))
        above.imshow(draw_step(equipment, image, layer, step), interpolation="none")
        below.imshow(draw_map(equipment, image, name, layer, step), interpolation="none")
        above.set_title(fill(_title(image), max(10, round(14 * side))), fontsize=6, color=COLOURS[column])
        for axes in (above, below):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    _draw_curves(figure.add_subplot(grid[:, -1]), equipment, images, name, layer, step)
    return figure


def _title(image: GeneratedImage) -> str:
    return f"{image.prompt} ({image.seed})"


def _draw_curves(
    axes: Axes, equipment: Equipment, images: Sequence[GeneratedImage], name: str, layer: str, step: int
) -> None:
    for image, colour in zip(images, COLOURS, strict=False):
        scores = scores_over_steps(equipment, image, name, layer)
        axes.plot([at + 1 for at in image.steps], scores, color=colour, marker="o", markersize=2.8)
    label_scores(axes, equipment.bank.properties[name].headline, images[0].steps)
    axes.axvline(step + 1, color="0.4", linestyle="--", linewidth=0.8)
    axes.set_xlabel("denoising step")


@style()
def draw_edit(image: GeneratedImage, edited: EditedImage) -> Figure:
    """The image with its label, the one that was denoised towards a mask, and the same with that mask."""
    figure = Figure(figsize=(DOUBLE_COLUMN, DOUBLE_COLUMN / 3 + 0.5), layout="constrained")
    figure.suptitle(f"{_title(image)}: Dice {edited.dice_before:.2f} before, {edited.dice:.2f} after")
    pictures = {
        "original, with its label": draw_outline(image.images[-1], image.label),
        "denoised with a mask": picture(edited.image),
        "the same, with the mask": draw_outline(edited.image, edited.target),
    }
    for axes, (title, pixels) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        axes.imshow(pixels, interpolation="none")
        axes.set(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def save_mask(path: Path, mask: Tensor) -> Path:
    """A mask [H, W] in {0, 1} as a PNG in black and white."""
    Image.fromarray((mask * 255).byte().numpy()).save(path)
    return path


def read_mask(path: str | Path) -> Tensor:
    """What `save_mask` wrote."""
    with Image.open(path, formats=["PNG"]) as opened:
        return torch.from_numpy(np.asarray(opened) / 255).float()


@dataclass(frozen=True, eq=False)
class Seen:
    """What the page shows.

    Attributes:
        name, layer, step: which probe, and at which step, from 0.
        current: the image that was edited.
        edited: what became of it, if anything was asked for.
    """

    equipment: Equipment
    images: Sequence[GeneratedImage]
    name: str
    layer: str
    step: int
    current: int = 0
    edited: EditedImage | None = None

    def save(self, folder: Path) -> list[Path]:
        """Writes the figures as PNG and PDF, and the mask that was asked for. Raises UserError as `draw_view`."""
        prompt = re.sub(r"\W+", "_", self.images[self.current].prompt)[:NAMED].strip("_") or "image"
        figure = draw_view(self.equipment, self.images, self.name, self.layer, self.step)
        files = list(save_figure(figure, folder, f"{prompt}_{self.name}_step_{self.step + 1}").values())
        if self.edited is not None:
            files += save_figure(draw_edit(self.images[self.current], self.edited), folder, f"{prompt}_edited").values()
            files.append(save_mask(folder / MASK, self.edited.target))
        return files

    def python(self) -> str:
        """Lines that draw the figures again, with the probes of the run that `equipment.command` makes."""
        prompts, seeds = [image.prompt for image in self.images], [image.seed for image in self.images]
        lines = [
            "import diffprobe as dp",
            "from diffprobe.app.equipment import load_from_run",
            f"from diffprobe.app.export import draw_view{', draw_edit, read_mask' * (self.edited is not None)}",
            f"from diffprobe.app.session import make_images{', denoise_towards' * (self.edited is not None)}",
            "",
            f"run = dp.read_run({str(self.equipment.folder)!r})  # of the command above",
            "equipment = load_from_run(run.folder)",
            f"images = make_images(equipment, {prompts!r}, {seeds!r})",
            f"figure = draw_view(equipment, images, {self.name!r}, {self.layer!r}, step={self.step})  # from 0",
            'figure.savefig("view.pdf")',
        ]
        if self.edited is not None:
            lines += [
                f"image = images[{self.current}]",
                f"edited = denoise_towards(equipment, image, read_mask({MASK!r}))",
                'draw_edit(image, edited).savefig("edited.pdf")',
            ]
        return "\n".join(lines) + "\n"

"""Classes: one logit a class and token, cross entropy against class fractions, and IoU, accuracy and Dice per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.properties.base import Legend, Picture, Property, Standardisation
from diffprobe.properties.tokens import Grid, divides, grid_of, token_means, upsampled

NONE = -1.0  # in a label map: no class, the pixel is ignored
# Okabe and Ito (2008), then Paul Tol's muted ones (personal.sron.nl/~pault, 2021): told apart by the colour-blind
PALETTE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
    *("#DDDDDD", "#882255", "#999933", "#332288", "#44AA99", "#AA4499", "#DDCC77", "#117733"),
)
IGNORED = (0.5, 0.5, 0.5)


def colour_of(number: int) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of a class; beyond the palette, its colours again and darker."""
    code = PALETTE[number % len(PALETTE)]
    shade = 0.7 ** (number // len(PALETTE))
    red, green, blue = (shade * int(code[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def cross_entropy(outputs: Tensor, planes: Tensor) -> Tensor:
    """Cross entropy of logits [..., classes, h, w] against the class fractions of each token [..., classes, h, w], over
    pixels with a class -> [...]; 0 where there is none.

    It is the mean over pixels after nearest-neighbour upsampling, since all pixels of a token share its logits.
    """
    labelled = planes.sum(-3)
    losses = labelled * outputs.logsumexp(-3) - (planes * outputs).sum(-3)
    return losses.sum((-2, -1)) / labelled.sum((-2, -1)).clamp(min=1e-12)


class ClassAreas(NamedTuple):
    """Areas in shares of an image, by class: of predictions and targets [..., images, classes] where there is a label,
    and of both together; `labelled` [images] is the share of pixels with a class."""

    predicted: Tensor
    target: Tensor
    overlap: Tensor
    labelled: Tensor

    def scores(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Mean IoU over the classes that prediction or target have, accuracy, and of every class Dice (NaN where
        neither has it), overlap and union."""
        total = self.predicted + self.target
        union = total - self.overlap
        there = union > 1e-9
        found = {
            "mean_iou": (self.overlap / union).where(there, torch.nan).nanmean(-1),
            "accuracy": self.overlap.sum(-1) / self.labelled.where(self.labelled > 0, torch.nan),
        }
        dice = (2 * self.overlap / total).where(there, torch.nan)
        for number, name in enumerate(names):
            found[f"dice {name}"] = dice[..., number]
            found[f"overlap {name}"] = self.overlap[..., number]
            found[f"union {name}"] = union[..., number]
        return found


def class_areas(prediction: Tensor, fractions: Tensor) -> ClassAreas:
    """Of class numbers [..., images, h, w] (-1: no class is predicted) and class fractions [images, classes, h, w], or
    on a finer grid."""
    predicted = upsampled(prediction, grid_of(fractions)).flatten(-2)  # [..., images, n]
    some, numbers = (predicted >= 0).double(), predicted.clamp(min=0).long()
    classes = fractions.shape[-3]
    of_tokens = fractions.flatten(-2).double() / fractions.shape[-2:].numel()  # [images, classes, n]
    labelled = of_tokens.sum(-2)
    shape = (*numbers.shape[:-1], classes)
    at = some * of_tokens.transpose(-1, -2).expand(*numbers.shape, classes).gather(-1, numbers[..., None])[..., 0]
    empty = of_tokens.new_zeros(shape)
    return ClassAreas(
        predicted=empty.scatter_add(-1, numbers, some * labelled),
        target=of_tokens.sum(-1).expand(shape),
        overlap=empty.scatter_add(-1, numbers, at),
        labelled=labelled.sum(-1),
    )


@dataclass(frozen=True)
class Categorical(Property):
    """One of several classes: labels are class numbers from 0, or -1 for none.

    Attributes:
        classes: their names, by number.
        ignore: the number that stands for no class in files.
    """

    classes: tuple[str, ...] = ()
    ignore: int | None = None

    kind: ClassVar[str] = "categorical"
    flat: ClassVar[tuple[str, str]] = ("one class everywhere", "")

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise UserError(f"{self.name}: classes {list(self.classes)}; give at least two, each once")

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @property
    def metrics(self) -> tuple[str, ...]:
        own = (f"{metric} {name}" for name in self.classes for metric in ("dice", "overlap", "union"))
        return "mean_iou", "accuracy", *own

    def target(self, labels: Tensor) -> Tensor:
        """Raises UserError for a number that no class has."""
        wrong = labels[(labels != labels.round()) | (labels < NONE) | (labels >= len(self.classes))]
        if len(wrong):
            raise UserError(
                f"{self.name}: a label map has the value {wrong[0].item():g}; its {len(self.classes)} classes are "
                f"numbered from 0 to {len(self.classes) - 1}, and -1 is no class"
            )
        return labels.float()

    def planes(self, target: Tensor, grid: Grid) -> Tensor:
        """The fraction of each class, [images, classes, h, w]."""
        return torch.stack([token_means((target == number).float(), grid) for number in range(len(self.classes))], 1)

    def weights(self, planes: Tensor) -> Tensor:
        return planes.sum(-3)

    def all_labelled(self, target: Tensor) -> bool:
        return bool((target >= 0).all())

    def sums(self, target: Tensor) -> Tensor:
        """Pixels of each class."""
        return torch.stack([(target == number).sum() for number in range(len(self.classes))]).double()

    def standardisation_of(self, sums: Tensor) -> Standardisation:
        if int((sums > 0).sum()) < 2:
            raise UserError(f"{self.name}: all training labels are of one class; a probe needs two at least")
        return Standardisation()

    def loss(self, outputs: Tensor, planes: Tensor) -> Tensor:
        return cross_entropy(outputs, planes)

    def coding(self, standardisation: Standardisation) -> tuple[list[float], list[float]]:
        """Logits to first order around equal ones: z = K p - 1 of a probability p among K classes."""
        count = len(self.classes)
        return [float(count)] * count, [-1.0] * count

    def decode(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        """Class numbers, as floats."""
        return outputs.argmax(-3).float()

    def differentiable(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-3)

    def constant(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        return planes.argmax(0).float()

    def prepared(self, target: Tensor, standardisation: Standardisation, grids: Iterable[Grid]) -> dict[Grid, Tensor]:
        """Class fractions."""
        return {grid: self.planes(target, grid if divides(grid, target) else grid_of(target)) for grid in grids}

    def scores(self, prediction: Tensor, prepared: Tensor, thresholds: Sequence[float] = ()) -> Mapping[str, Tensor]:
        return class_areas(prediction, prepared).scores(self.classes)

    def picture(self, maps: np.ndarray, label: np.ndarray) -> Picture:
        """One colour a class, grey where there is none."""
        colours = np.array([*(colour_of(number) for number in range(len(self.classes))), IGNORED])
        return Picture(colours[maps.astype(int)])

    def legend(self) -> Legend:
        """Every class, and the grey of pixels without one where there may be some."""
        named = [(name, colour_of(number)) for number, name in enumerate(self.classes)]
        return named if self.ignore is None else [*named, ("no class", IGNORED)]

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), "classes": list(self.classes), "ignore": self.ignore}

"""The scores as torchmetrics: one value per image, then the mean over images; right under DDP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffprobe.probes import functional


class PerImage(Metric):
    """Mean over images of a score per image.

    `update` takes a prediction [images, h, w] and a target [images, H, W]. `compute` leaves images without a defined
    score (NaN, e.g. the correlation of a constant map) out of the mean and counts them in `undefined`; with none left
    it gives NaN. The per-image values are gathered from all processes, so the mean does not depend on their number.
    """

    full_state_update = False
    is_differentiable = False
    score: Callable[[Tensor, Tensor], Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.values: list[Tensor]
        self.undefined = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        self.values.append(type(self).score(prediction, target))

    def compute(self) -> Tensor:
        values: Tensor = dim_zero_cat(self.values)
        self.undefined = int(values.isnan().sum())
        return torch.nanmean(values)


class Dice(PerImage):
    """Dice of the foreground of masks in {0, 1}; both empty is 1, one empty 0."""

    higher_is_better = True
    score = staticmethod(functional.dice)


class BackgroundDice(PerImage):
    """Dice of the background of masks in {0, 1}."""

    higher_is_better = True
    score = staticmethod(functional.background_dice)


class Spearman(PerImage):
    """Spearman rank correlation over the pixels of an image; undefined for constant maps."""

    higher_is_better = True
    score = staticmethod(functional.spearman)


class Pearson(PerImage):
    """Pearson correlation over the pixels of an image; undefined for constant maps."""

    higher_is_better = True
    score = staticmethod(functional.pearson)


class RMSE(PerImage):
    """Root mean squared error over the pixels of an image, in the units of its inputs."""

    higher_is_better = False
    score = staticmethod(functional.rmse)

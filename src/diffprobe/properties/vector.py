"""Vectors: one output a channel and token, squared error on standardised labels, and errors over an image's pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from diffprobe.errors import UserError
from diffprobe.precision import to_float64
from diffprobe.properties.base import Picture, Property, Standardisation, checked_spread
from diffprobe.properties.tokens import Grid, divides, grid_of, token_means, upsampled

WITHIN = (11.25, 22.5, 30.0)  # degrees (Fouhey, Gupta and Hebert 2013, "Data-Driven 3D Primitives")
SHORTEST = 1e-3  # of a unit vector; shorter ones mean that the pixel has none


def squared_error(outputs: Tensor, planes: Tensor) -> Tensor:
    """Half the squared distance of outputs [..., channels, h, w] from the mean vector of each token, over pixels with a
    vector -> [...]; 0 where there is none.

    Planes [..., channels + 1, h, w]: sums over a token's vectors divided by its pixels, and last the share of its
    pixels that have one.
    """
    share = planes[..., -1, :, :]
    means = planes[..., :-1, :, :] / share.clamp(min=1e-12).unsqueeze(-3)
    losses = share * (outputs - means).square().sum(-3) / 2
    return losses.sum((-2, -1)) / share.sum((-2, -1)).clamp(min=1e-12)


class PixelVectors(NamedTuple):
    """Target vectors [images, channels, H, W], which pixels have one [images, H, W], and the unit of errors."""

    vectors: Tensor
    there: Tensor
    unit: float


def angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Degrees between unit vectors [..., channels, h, w] and [channels, H, W], each pixel of a token against its
    prediction -> [..., H * W]. A vector of length 0 is 90 degrees from all."""
    grid, size = grid_of(prediction), grid_of(target)
    if not divides(grid, target):
        cosines = (upsampled(prediction, size) * target).sum(-3)
        return cosines.clamp(-1, 1).acos().rad2deg().flatten(-2)
    height, width = size[0] // grid[0], size[1] // grid[1]
    patches = target.unflatten(-1, (grid[1], width)).unflatten(-3, (grid[0], height))  # [channels, h, p, w, q]
    cosines = torch.einsum("...chw,chpwq->...hpwq", prediction, patches)
    return cosines.clamp(-1, 1).acos().rad2deg().flatten(-4)


def angle_scores(degrees: Tensor) -> dict[str, Tensor]:
    """Mean and median of angles [..., n], and the shares within 11.25, 22.5 and 30 degrees: [...] each."""
    ordered, count = degrees.sort(-1).values, degrees.shape[-1]
    found = {
        "mean_angle": degrees.mean(-1),
        "median_angle": (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2,
    }
    return found | {f"within_{limit:g}": (degrees < limit).to(degrees).mean(-1) for limit in WITHIN}


@dataclass(frozen=True)
class Vector(Property):
    """A vector at each pixel, [images, channels, H, W].

    Attributes:
        channels: of the vectors.
        unit: only their directions count, as of surface normals; a vector of length 0 means that a pixel has none.
    """

    channels: int = 3
    unit: bool = True

    kind: ClassVar[str] = "vector"
    flat: ClassVar[tuple[str, str]] = ("the same vector everywhere", "")

    @property
    def outputs(self) -> int:
        return self.channels

    @property
    def metrics(self) -> tuple[str, ...]:
        if not self.unit:
            return ("rmse",)
        return "mean_angle", "median_angle", *(f"within_{limit:g}" for limit in WITHIN)

    def target(self, labels: Tensor) -> Tensor:
        """Raises UserError for maps of another number of channels."""
        if labels.ndim != 4 or labels.shape[1] != self.channels:
            raise UserError(
                f"{self.name}: label maps of shape {list(labels.shape)}, expected [images, {self.channels}, height, "
                "width]"
            )
        values = labels.float()
        if not self.unit:
            return values
        return torch.where(self._there(values)[:, None], normalize(values, dim=1), 0.0)

    def one_valued(self, target: Tensor) -> Tensor:
        flat = target.flatten(2)
        return (flat.amax(2) == flat.amin(2)).all(1)

    def planes(self, target: Tensor, grid: Grid) -> Tensor:
        """Mean vectors, where pixels without one count as 0, and the share of pixels that have one."""
        there = self._there(target).float()
        return token_means(torch.cat([target, there[:, None]], 1), grid)

    def weights(self, planes: Tensor) -> Tensor:
        return planes[..., -1, :, :]

    def all_labelled(self, target: Tensor) -> bool:
        return bool(self._there(target).all())

    def sums(self, target: Tensor) -> Tensor:
        """Number of vectors, sums of their channels, and sum of all squares."""
        values = to_float64(target)
        count = self._there(target).sum().to(values)
        return torch.cat([count[None], values.sum((0, 2, 3)), values.square().sum()[None]])

    def standardisation_of(self, sums: Tensor) -> Standardisation:
        count, *totals, squares = sums.tolist()
        if not count:
            raise UserError(f"{self.name}: no pixel of the training labels has a vector")
        mean = tuple(total / count for total in totals)
        variance = squares / count - sum(each**2 for each in mean)
        std = 0.0 if variance <= 1e-12 * sum(each**2 for each in mean) else (variance / self.channels) ** 0.5
        checked_spread(self.name, list(mean), std)
        return Standardisation(mean, std)

    def standardise(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        share = planes[:, -1:]
        mean = planes.new_tensor(standardisation.mean)[:, None, None]
        return torch.cat([(planes[:, :-1] - share * mean) / standardisation.std, share], 1)

    def loss(self, outputs: Tensor, planes: Tensor) -> Tensor:
        return squared_error(outputs, planes)

    def coding(self, standardisation: Standardisation) -> tuple[list[float], list[float]]:
        mean, std = standardisation.mean, standardisation.std
        assert isinstance(mean, tuple)
        return [1 / std] * self.channels, [-each / std for each in mean]

    def decode(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        """Vectors in label units, of length 1 if only directions count."""
        return self._directions(standardisation.undo(outputs))

    def constant(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        return self._directions(planes[:-1] / planes[-1:].clamp(min=1e-12))

    def prepared(
        self, target: Tensor, standardisation: Standardisation, grids: Iterable[Grid]
    ) -> dict[Grid, PixelVectors]:
        return dict.fromkeys(grids, PixelVectors(target, self._there(target), standardisation.std))

    def scores(
        self, prediction: Tensor, prepared: PixelVectors, thresholds: Sequence[float] = ()
    ) -> Mapping[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for image, (target, there) in enumerate(zip(prepared.vectors, prepared.there, strict=True)):
            own = self._errors(to_float64(prediction[..., image, :, :, :]), to_float64(target), there)
            for name, values in own.items():
                values = values / prepared.unit if name == "rmse" else values
                found.setdefault(name, []).append(values)
        return {name: torch.stack(values, -1) for name, values in found.items()}

    def picture(self, maps: np.ndarray, label: np.ndarray) -> Picture:
        """The first three channels as red, green and blue: of unit vectors from -1 to 1, else in the label's range."""
        low, high = (-1.0, 1.0) if self.unit else np.percentile(label, [2, 98]).tolist()
        shown = np.moveaxis(maps[..., :3, :, :], -3, -1)
        if shown.shape[-1] < 3:
            shown = np.concatenate([shown, np.full((*shown.shape[:-1], 3 - shown.shape[-1]), (low + high) / 2)], -1)
        return Picture(np.clip((shown - low) / max(high - low, 1e-12), 0, 1))

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), "channels": self.channels, "unit": self.unit}

    def _there(self, target: Tensor) -> Tensor:
        """Which pixels have a vector, [images, H, W]."""
        if not self.unit:
            return torch.ones_like(target[:, 0], dtype=torch.bool)
        return target.square().sum(1) > SHORTEST**2

    def _directions(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-3) if self.unit else vectors

    def _errors(self, prediction: Tensor, target: Tensor, there: Tensor) -> dict[str, Tensor]:
        """Metrics of predictions [..., channels, h, w] of one image; NaN where no pixel has a vector."""
        if not self.unit:
            differences = upsampled(prediction, grid_of(target)) - target
            return {"rmse": differences.square().mean((-3, -2, -1)).sqrt()}
        degrees = angles(prediction, target)[..., there.flatten()]
        if degrees.shape[-1]:
            return angle_scores(degrees)
        nothing = degrees.new_full(degrees.shape[:-1], torch.nan)
        return dict.fromkeys(self.metrics, nothing)

"""What a kind of property says: how its maps are learned, decoded, scored and drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.properties.tokens import Grid, token_means


@dataclass(frozen=True)
class Standardisation:
    """One mean (of vectors one a channel) and one standard deviation over all training images and pixels, in label
    units."""

    mean: float | tuple[float, ...] = 0.0
    std: float = 1.0

    def apply(self, values: Tensor) -> Tensor:
        """Label units to standardised units; vectors are [..., channels, h, w]."""
        return (values - self._middle(values)) / self.std

    def undo(self, values: Tensor) -> Tensor:
        """Standardised units to label units."""
        return values * self.std + self._middle(values)

    def _middle(self, like: Tensor) -> Tensor | float:
        if isinstance(self.mean, float | int):
            return self.mean
        return torch.tensor(self.mean, dtype=like.dtype, device=like.device)[:, None, None]


# What colours (red, green and blue in [0, 1]) stand for
Legend = list[tuple[str, tuple[float, float, float]]]


class Picture(NamedTuple):
    """A map to be drawn: values [..., h, w] in a colour map, from `low` to `high`; or colours [..., h, w, 3] in [0, 1]
    with no colour map."""

    values: np.ndarray
    colours: str | None = None
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Property(ABC):
    """One thing to be probed. Its kind is a subclass, in a file of its own.

    A label map and a target are [images, H, W], of vectors [images, channels, H, W]. Its *planes* on a grid of tokens,
    [images, planes, h, w], are all that a loss needs of it: means over each token's pixels. Outputs of a probe are
    [..., outputs, h, w]; what they are decoded to, a prediction, is [..., h, w], of vectors [..., channels, h, w].

    Attributes:
        name: in tables and file names.
        learning_rate: Adam's.
    """

    name: str
    learning_rate: float = 1e-3

    kind: ClassVar[str]
    # What a label of one value everywhere is, and what follows from it for its scores, for warnings
    flat: ClassVar[tuple[str, str]] = ("the same value everywhere", "")

    @property
    def binary(self) -> bool:
        """Whether predictions are probabilities, to be cut at a threshold."""
        return False

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Of a probe, per token."""

    @property
    def regressed(self) -> int:
        """Maps that least squares predicts: the first planes, each scaled and shifted (`coding`)."""
        return self.outputs

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of all scores, see `diffprobe.properties.metrics`; the first is the headline, which selects layers."""

    @property
    def headline(self) -> str:
        return self.metrics[0]

    @abstractmethod
    def target(self, labels: Tensor) -> Tensor:
        """Label maps to targets, in float32. Raises UserError for values that no label of this kind has."""

    def one_valued(self, target: Tensor) -> Tensor:
        """Which targets have one value everywhere, [images]."""
        flat = target.flatten(1)
        return flat.amax(1) == flat.amin(1)

    def planes(self, target: Tensor, grid: Grid) -> Tensor:
        """The target on a grid, [images, planes, h, w], in label units."""
        return token_means(target, grid)[:, None]

    def weights(self, planes: Tensor) -> Tensor | None:
        """The share of each token's pixels that have a label, [..., h, w]; None where all have."""
        return None

    def all_labelled(self, target: Tensor) -> bool:
        """Whether every pixel of a target has a label."""
        return True

    def sums(self, target: Tensor) -> Tensor:
        """What adds up over images to all that `standardisation_of` needs, float64 [numbers]."""
        return torch.zeros(1, dtype=torch.float64, device=target.device)

    def standardisation_of(self, sums: Tensor) -> Standardisation:
        """Of training targets with these `sums`. Raises UserError for labels that no probe can learn."""
        return Standardisation()

    def standardisation(self, target: Tensor) -> Standardisation:
        """Of the training images' targets. Raises UserError as `standardisation_of`."""
        return self.standardisation_of(self.sums(target))

    def standardise(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        """Planes in label units to what the loss takes."""
        return planes

    @abstractmethod
    def loss(self, outputs: Tensor, planes: Tensor) -> Tensor:
        """Mean loss over the labelled pixels, of outputs [..., outputs, h, w] and planes that broadcast: [...]."""

    def coding(self, standardisation: Standardisation) -> tuple[list[float], list[float]]:
        """Of each map that least squares predicts, by what the plane is multiplied, and what is added."""
        return [1.0] * self.regressed, [0.0] * self.regressed

    def from_regressed(self, maps: Tensor) -> Tensor:
        """Maps predicted by least squares [..., regressed, h, w] to outputs; linear, so it takes weights as well."""
        return maps

    @abstractmethod
    def decode(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        """Outputs to predictions as they are scored: probabilities, standardised units, class numbers, vectors."""

    def in_label_units(self, prediction: Tensor, standardisation: Standardisation) -> Tensor:
        """Predictions as they are scored to the units of the labels."""
        return prediction

    def of_labels(self, target: Tensor, standardisation: Standardisation) -> Tensor:
        """A target as a perfect prediction of it, as they are scored."""
        return target

    def differentiable(self, outputs: Tensor) -> Tensor:
        """Maps [..., maps, h, w] whose smoothness is that of the prediction."""
        return outputs

    @abstractmethod
    def constant(self, planes: Tensor, standardisation: Standardisation) -> Tensor:
        """The prediction without `outputs` that suits mean planes [planes, h, w] best: [h, w], of vectors
        [channels, h, w]."""

    @abstractmethod
    def prepared(self, target: Tensor, standardisation: Standardisation, grids: Iterable[Grid]) -> dict[Grid, Any]:
        """What `scores` needs of targets, by the grid of predictions: computed once for all probes."""

    @abstractmethod
    def scores(self, prediction: Tensor, prepared: Any, thresholds: Sequence[float] = ()) -> Mapping[str, Tensor]:
        """All metrics of predictions [steps, images, ...] on the grid that `prepared` is of: [steps, images] each.

        thresholds: of each step, from which on probabilities count as foreground.
        """

    @abstractmethod
    def picture(self, maps: np.ndarray, label: np.ndarray) -> Picture:
        """Maps [steps, h, w] (of vectors [steps, channels, h, w]) in label units, in the range of their label."""

    def legend(self) -> Legend:
        """What colours in a picture mean, where they stand for something by themselves."""
        return []

    def definition(self) -> dict[str, Any]:
        """What `property_from` makes this property from, as JSON values."""
        return {"name": self.name, "kind": self.kind, "learning_rate": self.learning_rate}


def checked_spread(name: str, mean: Any, std: float) -> None:
    """Raises UserError for training labels without finite mean, or that do not vary."""
    if not 0 < std < float("inf"):
        raise UserError(
            f"{name}: the training labels have mean {mean} and standard deviation {std}; a probe needs finite labels "
            "that vary. Check the label maps."
        )

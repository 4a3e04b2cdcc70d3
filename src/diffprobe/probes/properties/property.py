"""What a property is: a training target, a loss, a decoding and the scores that judge it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Items, Number, WordOr


@dataclass(frozen=True)
class PropertySelection:
    """Which properties are probed, and from which probability on a pixel is foreground: a number, or the best on
    validation images."""

    names: Annotated[list[Annotated[str, Choice("saliency", "depth", "shading")]], Items(1)]
    threshold: Annotated[Any, WordOr(("validation",), Annotated[float, Number(above=0, below=1)])] = "validation"


@dataclass(frozen=True)
class Standardisation:
    """One mean and one standard deviation over all training images and pixels, in label units."""

    mean: float = 0.0
    std: float = 1.0

    def apply(self, values: Tensor) -> Tensor:
        """Label units to standardised units."""
        return (values - self.mean) / self.std

    def undo(self, values: Tensor) -> Tensor:
        """Standardised units to label units."""
        return values * self.std + self.mean


@dataclass(frozen=True)
class Property:
    """One thing to be probed. A new property is one file that makes one of these and one line in `PROPERTIES`.

    name: as written in configs and tables.
    outputs: outputs of a probe per token.
    binary: True: the target is a mask, predictions are thresholded, nothing is standardised.
        False: the target is a quantity, standardised for training and scored as it is.
    learning_rate: Adam's, in the paper (Chen, Viégas and Wattenberg 2023).
    headline: the metric that selects layers. metrics: all that are reported.
    target: label maps [images, H, W] -> target maps [images, H, W], float32.
    loss: outputs [..., outputs, h, w], token targets that broadcast to [..., h, w] -> mean over tokens [...].
    decode: outputs [..., outputs, h, w] -> map [..., h, w] (a probability, or standardised units).
    """

    name: str
    outputs: int
    binary: bool
    learning_rate: float
    headline: str
    metrics: tuple[str, ...]
    target: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]

    def standardisation(self, target: Tensor) -> Standardisation:
        """Mean and standard deviation of the training images' target maps [images, H, W]; identity if binary.

        Raises UserError when the target is constant or not finite.
        """
        if self.binary:
            return Standardisation()
        values = target.double()
        return self.checked(Standardisation(values.mean().item(), values.std(correction=0).item()))

    def checked(self, found: Standardisation) -> Standardisation:
        """The standardisation of training labels, if they are such that a probe can learn them. Raises UserError."""
        if not 0 < found.std < float("inf"):
            raise UserError(
                f"{self.name}: the training labels have mean {found.mean} and standard deviation {found.std}; a probe "
                "needs finite labels that vary. Check the label maps."
            )
        return found

    def decode_map(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        """Outputs [..., outputs, h, w] to the map [..., h, w] a person looks at: probability, or label units."""
        return standardisation.undo(self.decode(outputs))

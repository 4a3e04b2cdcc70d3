"""The properties that can be probed: each with its target, loss, decoding and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Items, Number, WordOr


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
    """One thing to be probed. A new property is one of these in `PROPERTIES`, with its name in `PROPERTY_NAMES`.

    `target` maps label maps to target maps, both [images, H, W], in float32. `loss` takes outputs [..., outputs, h, w]
    and token targets that broadcast to [..., h, w] to the mean over tokens [...]. `decode` takes outputs to a map
    [..., h, w], a probability or in standardised units.
    """

    name: str
    outputs: int  # of a probe per token
    binary: bool  # the target is a mask, and predictions are thresholded; else a quantity, which is standardised
    learning_rate: float  # Adam's, in the paper (Chen, Viégas and Wattenberg 2023)
    headline: str  # the metric that selects layers
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
        """The standardisation. Raises UserError for one of training labels that no probe can learn."""
        if not 0 < found.std < float("inf"):
            raise UserError(
                f"{self.name}: the training labels have mean {found.mean} and standard deviation {found.std}; a probe "
                "needs finite labels that vary. Check the label maps."
            )
        return found

    def decode_map(self, outputs: Tensor, standardisation: Standardisation) -> Tensor:
        """Outputs [..., outputs, h, w] to the map [..., h, w]: a probability, or label units."""
        return standardisation.undo(self.decode(outputs))


# Named functions, since a Trainer that spawns processes pickles them.
def as_labelled(labels: Tensor) -> Tensor:
    return labels.float()


def only_output(outputs: Tensor) -> Tensor:
    return outputs.squeeze(-3)


def huber(outputs: Tensor, target: Tensor) -> Tensor:
    """Huber loss (delta 1) between outputs [..., 1, h, w] and the mean target of each token [..., h, w] -> [...].

    The paper takes the loss over pixels after nearest-neighbour upsampling. Its quadratic part has the same gradient
    here; its linear part is applied to the token's mean residual instead. Where the target is constant inside each
    token both losses are equal.
    """
    prediction = outputs.squeeze(-3)
    return F.huber_loss(prediction, target.expand_as(prediction), reduction="none", delta=1.0).mean((-2, -1))


def log_odds(outputs: Tensor) -> Tensor:
    """Two logits (background, foreground) [..., 2, h, w] -> log odds of foreground [..., h, w]."""
    background, salient = outputs.unbind(-3)
    return salient - background


def cross_entropy(outputs: Tensor, fraction: Tensor) -> Tensor:
    """Cross entropy of two logits [..., 2, h, w] against each token's foreground fraction [..., h, w] -> [...].

    It is the paper's mean over pixels after nearest-neighbour upsampling, since all pixels of a token share its logits.
    """
    odds = log_odds(outputs)
    return (F.softplus(odds) - fraction * odds).mean((-2, -1))


def foreground(labels: Tensor) -> Tensor:
    return (labels > 0).float()


def probability(outputs: Tensor) -> Tensor:
    return log_odds(outputs).sigmoid()


SALIENCY = Property(
    name="saliency",
    outputs=2,
    binary=True,
    learning_rate=1e-3,
    headline="dice",
    metrics=("dice", "dice_background"),
    target=foreground,
    loss=cross_entropy,
    decode=probability,
)


def _quantity(name: str, learning_rate: float) -> Property:
    return Property(
        name=name,
        outputs=1,
        binary=False,
        learning_rate=learning_rate,
        headline="spearman",
        metrics=("spearman", "pearson", "rmse"),
        target=as_labelled,
        loss=huber,
        decode=only_output,
    )


DEPTH = _quantity("depth", 1e-3)  # relative inverse depth, larger is nearer, as MiDaS gives it
SHADING = _quantity("shading", 1e-2)  # irradiance: the light that falls on each visible point
PROPERTIES: dict[str, Property] = {item.name: item for item in (SALIENCY, DEPTH, SHADING)}


def property_named(name: str) -> Property:
    """The property called `name`. Raises UserError, listing the nearest names, if there is none."""
    if name not in PROPERTIES:
        near = get_close_matches(str(name), PROPERTIES, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(PROPERTIES)}."
        raise UserError(f"unknown property {name!r}: {hint}")
    return PROPERTIES[name]


PROPERTY_NAMES = ("saliency", "depth", "shading")  # as plain text, for checks of settings that import nothing


@dataclass(frozen=True)
class PropertySelection:
    """Which properties are probed, and from which probability on a pixel is foreground: a number, or the best on
    validation images."""

    names: Annotated[list[Annotated[str, Choice(*PROPERTY_NAMES)]], Items(1)]
    threshold: Annotated[Any, WordOr(("validation",), Annotated[float, Number(above=0, below=1)])] = "validation"

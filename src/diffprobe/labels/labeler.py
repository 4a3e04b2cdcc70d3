"""The interface of everything that labels images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from diffprobe.errors import UserError


class Labeler(Protocol):
    """Gives images their maps: saliency 0 or 1, relative inverse depth (larger is nearer), shading as irradiance.

    Whatever a labeler needs (packages, weights, files) it asks for when it is made or checked, before any image is.
    """

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Makes sure that images called `names`, of `image_size` pixels a side, can be labelled.

        Raises:
            UserError: they cannot.
        """
        ...

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1], one name each -> {property: [images, height, width]} float32, CPU."""
        ...

    def fingerprint(self, name: str) -> str:
        """What determines the maps of property `name`, apart from the image: a hash of weights, settings or files."""
        ...


def check_only(known: str, properties: Sequence[str], labeler: object) -> None:
    """For labelers of one property.

    Raises:
        UserError: another one is asked for.
    """
    others = [name for name in properties if name != known]
    if others:
        raise UserError(
            f"{type(labeler).__name__} labels {known} and cannot label {others[0]}; use property={known}, or one "
            "labeler a property: labeler=image_models"
        )

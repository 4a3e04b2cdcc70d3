"""The interface of everything that labels images.

Images as image models take them: at eight bits, as a PNG file would hold them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.fitting import Geometry


def eight_bit(images: Tensor) -> Tensor:
    """[..., height, width] in [0, 1] -> the nearest of 256 levels, uint8, on the CPU."""
    return (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def trial_picture(size: int = 64) -> Tensor:
    """[1, 3, size, size] of noise, always the same: image models are tried on it before there are images."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


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


@runtime_checkable
class GeometryAwareLabeler(Labeler, Protocol):
    """A labeler whose maps were made elsewhere, of the images as they were before they became squares."""

    def set_geometries(self, geometries: Mapping[str, Geometry]) -> None:
        """Says of images by name how they become squares. To be called before `check`; images that are not named were
        square from the beginning."""
        ...

    def check_reference_maps(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """As `check`, for maps that are not learned but held against labels, such as those of unfinished images: they
        may be empty or constant."""
        ...


def check_reference_maps(labeler: Labeler, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
    """`GeometryAwareLabeler.check_reference_maps`, of labelers that compute their maps `check`."""
    check = labeler.check_reference_maps if isinstance(labeler, GeometryAwareLabeler) else labeler.check
    check(names, properties, image_size)


class SinglePropertyLabeler(ABC):
    """A labeler of one property, which has no fingerprint but that of itself and takes any image."""

    labels: ClassVar[str]

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Any image will do.

        Raises:
            UserError: another property than `labels` is asked for.
        """
        others = [name for name in properties if name != self.labels]
        if others:
            raise UserError(
                f"{type(self).__name__} labels {self.labels} and cannot label {others[0]}; use "
                f"property={self.labels}, or one labeler a property: labeler=image_models"
            )

    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, height, width] in [0, 1] -> {the property: [images, height, width]}."""
        self.check(names, properties, images.shape[-1])
        return {self.labels: self.maps(images)}

    def fingerprint(self, name: str) -> str:
        return self._fingerprint

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> [images, height, width]."""

    @property
    @abstractmethod
    def _fingerprint(self) -> str: ...

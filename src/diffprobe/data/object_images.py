"""Images with objects in them: what the sets of annotated images, and changed copies of them, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffprobe.fitting import Geometry


@dataclass(frozen=True)
class AnnotatedObject:
    """One object of one image.

    Attributes:
        name: '<image name>#<instance>', unique in its set.
        label: its class, as VOC spells it; of videos '<sequence>/<instance>', since DAVIS has no classes.
        instance: its number in the annotation of its image.
        area: share of the image's pixels.
    """

    name: str
    label: str
    instance: int
    area: float


@dataclass(frozen=True)
class Problem:
    """An image, or one object of it (else ''), that is left out, and why."""

    image: str
    object: str
    reason: str

    def __str__(self) -> str:
        return f"{self.object or self.image}: {self.reason}"


class ObjectImages(ABC):
    """Images whose objects are known. Holds no pixels, so it is cheap to hand to another process.

    Attributes:
        kind: which set: 'voc', 'coco', 'davis' or 'scenes'.
        names: of the images, by row.
        captions: all '', the prompt that the papers give the network.
        sequences, frames: of videos, '' and 0 elsewhere.
    """

    kind: str
    names: list[str]
    captions: list[str]
    sequences: list[str]
    frames: list[int]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def objects(self, row: int) -> list[AnnotatedObject]:
        """The objects of an image, without reading anything."""

    @abstractmethod
    def picture(self, row: int, size: int) -> Tensor:
        """[3, size, size], float32 in [0, 1], stretched to the square."""

    @abstractmethod
    def masks(self, row: int) -> Tensor:
        """[objects, height, width], bool, in the order of `objects(row)`, at the annotation's own size."""

    @abstractmethod
    def record(self, row: int) -> dict[str, Any]:
        """What determines the picture and the masks, as JSON values: id, caption, digests."""

    def geometry(self, row: int) -> Geometry | None:
        """None: its masks are its own, and no other map is made of it."""
        return None

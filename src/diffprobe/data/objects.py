"""Images with annotated objects: what VOC, COCO, DAVIS and rendered scenes have in common, and their changed copies."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from diffprobe.data.images import DecodedFile, ImageCollection, ImageFile, inspect_image_file, read_image
from diffprobe.errors import UserError
from diffprobe.fitting import UPRIGHT


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


class ObjectImages(ImageCollection):
    """Images whose objects are known, stretched to the square.

    Attributes:
        kind: which set: 'voc', 'coco', 'davis', 'scenes' or 'moving_scenes'.
        captions: all '', the prompt that the papers give the network.
        sequences, frames: of videos; '' and 0 elsewhere.
    """

    kind: str
    sequences: list[str]
    frames: list[int]

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def objects(self, row: int) -> list[AnnotatedObject]:
        """The objects of an image. Reads nothing."""

    @abstractmethod
    def masks(self, row: int) -> Tensor:
        """[objects, height, width], bool, in the order of `objects(row)`, at the annotation's own size."""


@dataclass(frozen=True)
class Instance:
    """One object as it is annotated; `mask` is [height, width], bool."""

    number: int
    label: str
    mask: np.ndarray


@dataclass
class Annotation:
    """The annotation of an image: its instances by number, and (number, reason) of what is wrong."""

    instances: list[Instance] = field(default_factory=list)
    faults: list[tuple[int | str, str]] = field(default_factory=list)


class AnnotatedImages(ObjectImages):
    """Images of a set: first all candidates without objects, then with `subset` those to be used."""

    def __init__(
        self, names: Sequence[str], sequences: Sequence[str] | None = None, frames: Sequence[int] | None = None
    ) -> None:
        self.names = list(names)
        self.captions = [""] * len(self.names)
        self.sequences = list(sequences) if sequences is not None else [""] * len(self.names)
        self.frames = list(frames) if frames is not None else [0] * len(self.names)
        self._objects: list[list[AnnotatedObject]] = [[] for _ in self.names]

    @abstractmethod
    def read(self, row: int) -> Annotation:
        """The annotation of an image. Raises UserError if it cannot be read at all."""

    def check_picture(self, row: int, height: int, width: int) -> None:
        """Raises UserError if the picture cannot be decoded, or does not have the size of its masks."""

    def picture_key(self, row: int) -> str:
        """The same for two images of one picture, of which only one is used; frames of a video may be alike."""
        return self.names[row]

    def objects(self, row: int) -> list[AnnotatedObject]:
        return self._objects[row]

    def masks(self, row: int) -> Tensor:
        masks = {instance.number: instance.mask for instance in self.read(row).instances}
        return torch.from_numpy(np.stack([masks[item.instance] for item in self._objects[row]]))

    def subset(self, rows: Sequence[int], objects: Sequence[list[AnnotatedObject]]) -> Self:
        """The same set with these images only, and these objects of each."""
        chosen = copy(self)
        for attribute in ("names", "captions", "sequences", "frames"):
            values = getattr(self, attribute)
            setattr(chosen, attribute, [values[row] for row in rows])
        chosen._objects = list(objects)
        return chosen

    def usable_objects(self, row: int) -> tuple[list[AnnotatedObject], list[Problem]]:
        """Reads annotation and picture once: the objects that can be used, and what is wrong."""
        image = self.names[row]
        try:
            annotation = self.read(row)
            if annotation.instances:
                self.check_picture(row, *annotation.instances[0].mask.shape)
        except UserError as error:
            return [], [Problem(image, "", str(error))]
        problems = [Problem(image, f"{image}#{number}", reason) for number, reason in annotation.faults]
        objects = [
            AnnotatedObject(f"{image}#{found.number}", found.label, found.number, float(found.mask.mean()))
            for found in annotation.instances
        ]
        problems += [Problem(image, item.name, "its mask has no pixels") for item in objects if item.area == 0]
        return [item for item in objects if item.area > 0], problems


class ImageFiles(AnnotatedImages):
    """Annotated images whose pictures are files.

    Prototypes are stored under the hashes of picture and annotation, so neither may change: the picture from its first
    reading on, the annotation from its `record` on.
    """

    def __init__(
        self, names: Sequence[str], sequences: Sequence[str] | None = None, frames: Sequence[int] | None = None
    ) -> None:
        super().__init__(names, sequences, frames)
        self._contents: dict[str, DecodedFile] = {}  # of the pictures, by image name
        self._annotations: dict[str, str] = {}  # digests, by image name

    @abstractmethod
    def file(self, row: int) -> Path:
        """The picture's file."""

    @abstractmethod
    def annotation_digest(self, row: int) -> str:
        """SHA-256 of the annotation of an image."""

    def picture_key(self, row: int) -> str:
        return self.names[row] if self.sequences[row] else self._first_contents(row).pixels

    def check_picture(self, row: int, height: int, width: int) -> None:
        path = self.file(row)
        if not path.exists():
            others = sorted(each.name for each in path.parent.glob(f"{escape(path.stem)}.*"))
            raise UserError(f"there is no image {path}" + (f", but {', '.join(others[:3])}" if others else ""))
        found = self._first_contents(row)
        if found.orientation != UPRIGHT:
            raise UserError(f"the EXIF data of {path} turn it, which leaves open how its masks lie; save it upright")
        if (found.width, found.height) != (width, height):
            raise UserError(f"its mask is {width} x {height} pixels, its image {found.width} x {found.height}")

    def picture(self, row: int, size: int) -> Tensor:
        return read_image(ImageFile(self.names[row], self.file(row), contents=self._first_contents(row)), size)

    def masks(self, row: int) -> Tensor:
        """Raises UserError if the annotation has changed since `record`."""
        masks, known = super().masks(row), self._annotations.get(self.names[row])
        if known is not None and self.annotation_digest(row) != known:
            raise UserError(f"the annotation of {self.file(row)} was changed while it was in use; run it again")
        return masks

    def record(self, row: int) -> dict[str, Any]:
        name = self.names[row]
        self._annotations[name] = self.annotation_digest(row)
        return {
            "id": name,
            "caption": self.captions[row],
            "sha256": self._first_contents(row).sha256,
            "annotation": self._annotations[name],
        }

    def _first_contents(self, row: int) -> DecodedFile:
        name = self.names[row]
        if name not in self._contents:
            self._contents[name] = inspect_image_file(self.file(row))
        return self._contents[name]


def digest(*contents: bytes) -> str:
    """SHA-256 of some contents, in hexadecimal."""
    return hashlib.sha256(b"".join(contents)).hexdigest()


def find_set(
    root: str | Path, places: Sequence[str], needed: Sequence[str], what: str, layout: str, source: str
) -> Path:
    """The folder of a set: of `places` below `root`, the one that has most of what is needed.

    Raises:
        UserError: it lacks something; the message has the expected layout, and where to get the set.
    """
    candidates = [Path(root) / place for place in places]
    best = max(candidates, key=lambda place: sum((place / name).exists() for name in needed))
    missing = [str(best / name) for name in needed if not (best / name).exists()]
    if missing:
        raise UserError(
            f"{what}: there is no {', no '.join(missing)}. Give the folder that holds this as objects.root:\n"
            f"{layout}\nGet it from {source}"
        )
    return best

"""Labels and classes of a few images, with what it takes to make them: to see whether a model is wired rightly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.labels.classifiers import Classifier
from diffprobe.labels.labeler import CachedLabeler, Labeler, PerProperty
from diffprobe.properties import Property
from diffprobe.properties.vector import Vector

TOP = 5


@dataclass(frozen=True)
class Seconds:
    """What labels took.

    Attributes:
        loading: of packages, weights and maps.
        first: of the first image.
        others: of each image after it; None without one.
    """

    loading: float
    first: float
    others: float | None


@dataclass(frozen=True)
class PropertyTrial:
    """The maps of a property.

    Attributes:
        maps: as `Property.target` has them, [images, H, W], of vectors [images, channels, H, W].
        folder: that keeps them; None if they are not kept.
        found: how many of them were in the folder already.
    """

    item: Property
    maps: Tensor
    seconds: Seconds
    folder: Path | None
    found: int


@dataclass(frozen=True)
class ClassTrial:
    """The likeliest classes of each image, the likeliest first: by image pairs of class and probability."""

    classifier: str
    top: list[list[tuple[str, float]]]
    seconds: Seconds


def try_labeler(
    labeler: Labeler, items: Sequence[Property], images: Tensor, names: Sequence[str], loading: Sequence[float]
) -> list[PropertyTrial]:
    """Labels images [images, 3, height, width] in [0, 1] with each property.

    Args:
        loading: seconds that each property's part of the labeler took to load.

    Raises:
        UserError: the labeler gives what no label of a property is.
    """
    return [_try_property(labeler, item, images, names, seconds) for item, seconds in zip(items, loading, strict=True)]


def _try_property(
    labeler: Labeler, item: Property, images: Tensor, names: Sequence[str], loading: float
) -> PropertyTrial:
    part = labeler.labeler_of(item.name) if isinstance(labeler, PerProperty) else labeler
    folder = part.place(item.name) if isinstance(part, CachedLabeler) else None
    before = _files(folder)

    def label(rows: slice) -> tuple[Tensor, float]:
        start = time.perf_counter()
        maps = labeler(images[rows], names[rows], [item.name])[item.name]
        return maps, time.perf_counter() - start

    maps, first = label(slice(1))
    others = None
    if len(images) > 1:
        more, seconds = label(slice(1, None))
        maps, others = torch.cat([maps, more]), seconds / (len(images) - 1)
    found = len(images) - (_files(folder) - before)
    return PropertyTrial(item, _checked(item, maps, images), Seconds(loading, first, others), folder, found)


def _files(folder: Path | None) -> int:
    return 0 if folder is None else sum(1 for _ in folder.glob("*.safetensors"))


def _checked(item: Property, maps: Tensor, images: Tensor) -> Tensor:
    """The maps as targets. Raises UserError for maps of another shape, or with values that no label has."""
    target = item.target(maps)
    channels = [item.channels] if isinstance(item, Vector) else []
    wanted = [len(images), *channels, *images.shape[-2:]]
    if list(target.shape) != wanted:
        raise UserError(f"{item.name}: the labeler gives maps {list(target.shape)} of images; they must be {wanted}")
    return target


def try_classifier(classifier: Classifier, images: Tensor, loading: float) -> ClassTrial:
    """Classifies images [images, 3, height, width] in [0, 1]; `loading`: seconds that the classifier took to load."""
    start = time.perf_counter()
    first = classifier(images[:1])
    middle = time.perf_counter()
    scores = torch.cat([first, classifier(images[1:])]) if len(images) > 1 else first
    others = (time.perf_counter() - middle) / (len(images) - 1) if len(images) > 1 else None
    top = [
        [(classifier.classes[int(number)], value) for value, number in zip(values, numbers, strict=True)]
        for values, numbers in zip(*(each.tolist() for each in scores.topk(min(TOP, scores.shape[1]))), strict=True)
    ]
    return ClassTrial(classifier.name, top, Seconds(loading, middle - start, others))

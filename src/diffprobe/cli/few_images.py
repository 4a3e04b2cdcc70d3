"""A few images of a run, by name: photographs of a folder, or images that the model of the run makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.trajectory import generate
from diffprobe.data.images import ImageFileCollection, load_images, split_readable
from diffprobe.data.prompts import load_prompts
from diffprobe.errors import UserError
from diffprobe.fitting import Geometry

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.analyses.inputs import Inputs


class FewImages(ABC):
    """Images that are read or made when they are asked for.

    Attributes:
        names: as `train.py` has them.
        size: pixels a side.
        geometries: how photographs became squares, by name.
    """

    names: list[str]
    size: int
    geometries: Mapping[str, Geometry]

    @abstractmethod
    def images(self) -> Tensor:
        """[images, 3, size, size] in [0, 1], float32 on the CPU."""


class Photographs(FewImages):
    """The first `count` images of `data`, a group with images.

    Raises:
        UserError: there are no images, or one cannot be read and `data.on_error` is not 'skip'.
    """

    def __init__(self, data: Any, count: int, size: int, log: Any) -> None:
        files = load_images(data.images, root=data.root, count=data.count, log=log)[:count]
        good, bad = split_readable(files, data.on_error)
        for image in bad:
            log(f"left out {image.name}: {image.reason}")
        self.collection, self.size = ImageFileCollection(good, data.fit), size
        self.names = self.collection.names
        self.geometries = {name: self.collection.geometry(row) for row, name in enumerate(self.names)}

    def images(self) -> Tensor:
        return torch.stack([self.collection.picture(row, self.size) for row in range(len(self.names))])


class Generated(FewImages):
    """The first `count` images that the run would make, by its model, prompts and steps.

    Raises:
        UserError: the model or the prompts cannot be loaded, or the model cannot make images by itself.
    """

    def __init__(self, inputs: Inputs, count: int) -> None:
        settings = inputs.settings
        self.prompts = load_prompts(settings.data.prompts, settings.data.count, settings.seed, inputs.log)[:count]
        inputs.tell_of_texts(self.prompts)
        self.backbone, self.steps = inputs.backbone, settings.steps.sampling
        self.batch_size = settings.features.batch_size
        self.names, self.size = [prompt.name for prompt in self.prompts], self.backbone.image_size
        self.geometries: Mapping[str, Geometry] = {}

    def images(self) -> Tensor:
        starts = range(0, len(self.prompts), self.batch_size)
        return torch.cat([self._batch(self.prompts[start : start + self.batch_size]) for start in starts])

    def _batch(self, prompts: Any) -> Tensor:
        texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
        latents = None
        for step in generate(self.backbone, texts, seeds, steps=self.steps):
            latents = step.latents
        assert latents is not None  # there is a step at least
        return decode_latents(self.backbone, latents).cpu()


def few_images(inputs: Inputs, count: int, size: int | None) -> FewImages:
    """Photographs where `data` has some, brought to squares of `size` pixels, else images that the model makes.

    Raises:
        UserError: as of `Photographs` and `Generated`, or a size is given for images of the model.
    """
    data = inputs.settings.data
    if "images" in data:
        assert size is not None
        return Photographs(data, count, size, inputs.log)
    if size is not None:
        raise UserError("--size is of photographs; images that the model makes have its own size, so leave --size out")
    return Generated(inputs, count)

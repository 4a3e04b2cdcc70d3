"""The built-in labeler and classifier: small networks for 64-pixel images of the pocket world, not for photographs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from diffprobe.backbone.model_folder import fingerprint_of
from diffprobe.errors import UserError
from diffprobe.pocket.networks import (
    IMAGE_SIZE,
    MAPS,
    SURFACES,
    SurfaceNetwork,
    load_classifier,
    load_labeler,
    load_surfaces,
)
from diffprobe.pocket.scenes import COLOURS, SHAPES

BATCH = 64
MASKS = ("saliency", "shadow")
NEITHER = "nothing"


class PocketLabeler:
    """All maps of the built-in world, `diffprobe.pocket.networks.MAPS` and `SURFACES`, of its images."""

    def __init__(self) -> None:
        self.network = load_labeler()

    @cached_property
    def surfaces(self) -> SurfaceNetwork:
        """The second decoder, which only some properties need."""
        return load_surfaces()

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Raises UserError for images of another size, and for a property that the world does not have."""
        _check_size(image_size, "labeler=pocket", "give label maps: labeler=files labeler.path=FOLDER")
        unknown = [name for name in properties if name not in (*MAPS, *SURFACES)]
        if unknown:
            raise UserError(
                f"labeler=pocket does not know {unknown[0]!r}, only {', '.join((*MAPS, *SURFACES))}; give maps of it: "
                "labeler=files labeler.path=FOLDER"
            )

    @torch.no_grad()
    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, 64, 64] in [0, 1] -> {property: [images, 64, 64]}, of vectors [images, channels, 64, 64]."""
        batches = [self._maps(batch.float(), properties) for batch in images.split(BATCH)]
        maps = {name: torch.cat([batch[name] for batch in batches]) for name in properties}
        return {name: (values > 0.5).float() if name in MASKS else values for name, values in maps.items()}

    def _maps(self, images: Tensor, properties: Sequence[str]) -> dict[str, Tensor]:
        features = self.network.features(images)
        found = self.network.maps(features)
        if any(name in SURFACES for name in properties):
            found |= self.surfaces.maps(features)
        return found

    def fingerprint(self, name: str) -> str:
        """Of the weights of the networks that label it."""
        return f"{self._fingerprint} {self._of_surfaces}" if name in SURFACES else self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint_of(self.network)

    @cached_property
    def _of_surfaces(self) -> str:
        return fingerprint_of(self.surfaces)


class PocketClassifier:
    """24 classes, 'red sphere' to 'cyan cone', and 'nothing', of the leftmost object of an image.

    The probability of a class is the product of its colour's and its shape's.
    """

    name = "pocket"
    classes = (*(f"{colour} {shape}" for colour, shape in product(COLOURS, SHAPES)), NEITHER)

    def __init__(self) -> None:
        self.network = load_classifier()

    def check(self, image_size: int) -> None:
        """Raises UserError for images of another size."""
        _check_size(image_size, "classifier=pocket", "choose classifier=transformers")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, 64, 64] in [0, 1] -> probabilities [images, 25]."""
        return torch.cat([self._probabilities(batch.float().cpu()) for batch in images.split(BATCH)])

    def _probabilities(self, images: Tensor) -> Tensor:
        colour, shape = (logits[:, 0].softmax(-1) for logits in self.network(images))  # the first place is the leftmost
        both = (colour[:, :-1, None] * shape[:, None, :-1]).flatten(1)
        return torch.cat([both, (1 - both.sum(1, keepdim=True)).clamp_min(0)], 1)


def _check_size(image_size: int, choice: str, instead: str) -> None:
    if image_size != IMAGE_SIZE:
        raise UserError(
            f"{choice} knows {IMAGE_SIZE}-pixel pictures of the pocket world only, and this model's have "
            f"{image_size}; {instead}"
        )

"""The built-in labeler: a small network trained on rendered pocket scenes. It knows nothing of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from diffprobe.backbone.fingerprint import fingerprint_of
from diffprobe.errors import UserError
from diffprobe.pocket.architecture import IMAGE_SIZE
from diffprobe.pocket.networks import load_labeler

BATCH = 64


class PocketLabeler:
    """Labels 64-pixel pictures of the pocket world."""

    def __init__(self) -> None:
        self.network = load_labeler()

    def check(self, names: Sequence[str], properties: Sequence[str], image_size: int) -> None:
        """Refuses pictures that it cannot know anything about.

        Raises:
            UserError: the model makes pictures of another size, so they are not of the pocket world.
        """
        if image_size != IMAGE_SIZE:
            raise UserError(
                f"labeler=pocket knows {IMAGE_SIZE}-pixel pictures of the pocket world only, and this model's have "
                f"{image_size}; give label maps: labeler=files labeler.path=FOLDER"
            )

    @torch.no_grad()
    def __call__(self, images: Tensor, names: Sequence[str], properties: Sequence[str]) -> dict[str, Tensor]:
        """[images, 3, 64, 64] in [0, 1] -> {property: [images, 64, 64]}."""
        batches = [self.network.maps(batch.float()) for batch in images.split(BATCH)]
        maps = {name: torch.cat([batch[name] for batch in batches]) for name in properties}
        return {name: (values > 0.5).float() if name == "saliency" else values for name, values in maps.items()}

    def fingerprint(self, name: str) -> str:
        """Of the network's weights."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint_of(self.network)

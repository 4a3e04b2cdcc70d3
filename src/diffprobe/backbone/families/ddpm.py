"""Unconditional models in pixel space: no text, no guidance, no VAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffprobe.backbone.families.base import Conditions, Family
from diffprobe.errors import UserError


class Ddpm(Family):
    """Latents are the images themselves, in [-1, 1]; prompts are ignored."""

    pipeline = "DDPMPipeline"
    denoisers = ("UNet2DModel",)
    eta = None

    def guided(self, guidance: float) -> bool:
        return False

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        return {}

    def example(self, config: Any) -> Conditions:
        """Raises UserError if the U-Net needs a class label."""
        for key in ("class_embed_type", "num_class_embeds"):
            if config.get(key) is not None:
                raise UserError(f"a U-Net with {key}={config[key]!r} needs the class of the image: unsupported")
        return {}

    def encode(self, vae: Any, images: Tensor) -> Tensor:
        return images

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        return latents

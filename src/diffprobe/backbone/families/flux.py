"""FLUX: blocks for image and text side by side, then single blocks for both joined; trained by flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffprobe.backbone.families.base import (
    EXAMPLE_TOKENS,
    Conditions,
    Family,
    resolution_shift,
    row_timesteps,
)

# The denoiser sees 2 x 2 latents as one token. Its config says neither this nor the size it was made for.
PATCH = 2
LATENT_SIZE = 128


class Flux(Family):
    """Guidance is an input of the network, or there is none; there is no guidance batch."""

    pipeline = "FluxPipeline"
    denoiser_part = "transformer"
    denoisers = ("FluxTransformer2DModel",)
    flow_matching = True

    def latent_shape(self, config: Any) -> tuple[int, int, int]:
        size = config.get("sample_size", LATENT_SIZE)
        return config["in_channels"] // PATCH**2, size, size

    def size_step(self, config: Any) -> int:
        return PATCH

    def guided(self, guidance: float) -> bool:
        return False

    def embeds_guidance(self, config: Any) -> bool:
        return config["guidance_embeds"]

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        text, pooled, _ = backbone.pipeline.encode_prompt(list(prompts), device=backbone.device)
        conditions = {"encoder_hidden_states": text, "pooled_projections": pooled}
        if self.embeds_guidance(backbone.denoiser.config):
            conditions["guidance"] = torch.full((len(prompts),), backbone.guidance, device=backbone.device)
        return conditions

    def example(self, config: Any) -> Conditions:
        conditions = {
            "encoder_hidden_states": torch.empty(1, EXAMPLE_TOKENS, config["joint_attention_dim"]),
            "pooled_projections": torch.empty(1, config["pooled_projection_dim"]),
        }
        return conditions | ({"guidance": torch.empty(1)} if self.embeds_guidance(config) else {})

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        height, width = latents.shape[2] // PATCH, latents.shape[3] // PATCH
        text = conditions["encoder_hidden_states"]
        # Without weights (meta device) positions stay on the CPU: hooks read the height and width from them.
        place = "cpu" if latents.is_meta else latents.device
        with torch.device("cpu"):
            positions = torch.cartesian_prod(torch.arange(1), torch.arange(height), torch.arange(width))
        predicted = denoiser(
            functional.pixel_unshuffle(latents, PATCH).flatten(2).transpose(1, 2),
            timestep=row_timesteps(timestep, latents).to(latents.dtype) / 1000,
            **conditions,
            txt_ids=torch.zeros(text.shape[1], 3, device=place, dtype=latents.dtype),
            img_ids=positions.to(place, latents.dtype),
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(predicted.transpose(1, 2).unflatten(2, (height, width)), PATCH)

    def set_timesteps(self, scheduler: Any, steps: int, backbone: Any) -> None:
        shift = resolution_shift(scheduler.config, backbone.latent_shape, PATCH, 1.15)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift, device=backbone.device)

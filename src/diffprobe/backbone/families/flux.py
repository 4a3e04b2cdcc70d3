"""FLUX: blocks for image and text side by side, then single blocks for both joined; trained by flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffprobe.backbone.families.base import (
    EXAMPLE_TOKENS,
    Conditions,
    Family,
    LoadedPipeline,
    resolution_shift,
    row_timesteps,
)

# The denoiser sees squares of 2 x 2 latents as one token. Its config does not say so, nor what size it was made for.
PATCH = 2
LATENT_SIZE = 128


class Flux(Family):
    """Guidance is a number that the network is told: there is no guidance batch."""

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

    def conditions(self, backbone: LoadedPipeline, prompts: Sequence[str], guided: bool) -> Conditions:
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
        # On the CPU beside a network without weights: hooks read the grid of the image from the positions.
        place = "cpu" if latents.is_meta else latents.device
        predicted = denoiser(
            pack(latents),
            timestep=row_timesteps(timestep, latents).to(latents.dtype) / 1000,
            **conditions,
            txt_ids=torch.zeros(text.shape[1], 3, device=place, dtype=latents.dtype),
            img_ids=positions(height, width).to(place, latents.dtype),
            return_dict=False,
        )[0]
        return unpack(predicted, height, width)

    def set_timesteps(self, scheduler: Any, steps: int, backbone: LoadedPipeline) -> None:
        _, height, width = backbone.latent_shape
        shift = resolution_shift(scheduler.config, (height // PATCH) * (width // PATCH), 1.15)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift, device=backbone.device)


def pack(latents: Tensor) -> Tensor:
    """Latents [batch, channels, h, w] to tokens [batch, h/2 * w/2, 4 * channels]."""
    squares = latents.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # batch, channels, rows, 2, columns, 2
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [batch, height * width, 4 * channels] to latents [batch, channels, 2 * height, 2 * width]."""
    squares = tokens.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (height, width))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def positions(height: int, width: int) -> Tensor:
    """0, row and column of every token, [height * width, 3]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)

"""PixArt-alpha: a transformer with cross-attention to a T5 text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.families.base import (
    EXAMPLE_TOKENS,
    Conditions,
    Family,
    guidance_rows,
    row_timesteps,
)

# Inputs of the largest model alone, in a dictionary of their own.
ADDED = ("resolution", "aspect_ratio")


class PixArt(Family):
    """Captions are used as given, in lower case: the pipeline's cleaning depends on installed packages."""

    pipeline = "PixArtAlphaPipeline"
    denoiser_part = "transformer"
    denoisers = ("PixArtTransformer2DModel",)

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        pipeline: Any = backbone.pipeline
        text, mask, empty, empty_mask = pipeline.encode_prompt(list(prompts), guided, device=backbone.device)
        conditions = {
            "encoder_hidden_states": guidance_rows(empty, text, guided),
            "encoder_attention_mask": guidance_rows(empty_mask, mask, guided),
        }
        if pipeline.transformer.use_additional_conditions:
            rows = len(conditions["encoder_hidden_states"])
            height, width = (side * pipeline.vae_scale_factor for side in backbone.latent_shape[1:])
            conditions["resolution"] = torch.tensor([[height, width]]).to(text).repeat(rows, 1)
            conditions["aspect_ratio"] = torch.tensor([[height / width]]).to(text).repeat(rows, 1)
        return conditions

    def example(self, config: Any) -> Conditions:
        width = config.get("caption_channels") or config["cross_attention_dim"]
        return {
            "encoder_hidden_states": torch.empty(1, EXAMPLE_TOKENS, width),
            "encoder_attention_mask": torch.empty(1, EXAMPLE_TOKENS),
            "resolution": torch.empty(1, 2),
            "aspect_ratio": torch.empty(1, 1),
        }

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        predicted = denoiser(
            latents,
            timestep=row_timesteps(timestep, latents),
            **{key: value for key, value in conditions.items() if key not in ADDED},
            added_cond_kwargs={key: conditions.get(key) for key in ADDED},
            return_dict=False,
        )[0]
        return predicted[:, : latents.shape[1]]  # the learned variance after it is not used

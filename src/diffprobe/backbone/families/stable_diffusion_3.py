"""Stable Diffusion 3: a transformer over image and text together, trained by flow matching."""

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
    resolution_shift,
    row_timesteps,
)


class StableDiffusion3(Family):
    """Two CLIP text encoders and optionally a T5."""

    pipeline = "StableDiffusion3Pipeline"
    denoiser_part = "transformer"
    denoisers = ("SD3Transformer2DModel",)
    flow_matching = True

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        pipeline: Any = backbone.pipeline
        text, empty, pooled, empty_pooled = pipeline.encode_prompt(
            list(prompts), None, None, device=backbone.device, do_classifier_free_guidance=guided
        )
        return {
            "encoder_hidden_states": guidance_rows(empty, text, guided),
            "pooled_projections": guidance_rows(empty_pooled, pooled, guided),
        }

    def example(self, config: Any) -> Conditions:
        return {
            "encoder_hidden_states": torch.empty(1, EXAMPLE_TOKENS, config["joint_attention_dim"]),
            "pooled_projections": torch.empty(1, config["pooled_projection_dim"]),
        }

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        rows = row_timesteps(timestep, latents)
        return denoiser(latents, timestep=rows, **conditions, return_dict=False)[0]

    def set_timesteps(self, scheduler: Any, steps: int, backbone: Any) -> None:
        options = {}
        if scheduler.config.get("use_dynamic_shifting"):
            patch = backbone.denoiser.config.patch_size
            options["mu"] = resolution_shift(scheduler.config, backbone.latent_shape, patch, 1.16)
        scheduler.set_timesteps(steps, device=backbone.device, **options)

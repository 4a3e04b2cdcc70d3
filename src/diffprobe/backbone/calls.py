"""What is asked of a pipeline's parts: text and images encoded, latents decoded, the denoiser evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.load import Backbone

# Keyword arguments of the denoiser, tensors with one row an image; of a guidance batch the empty prompt's come first.
Conditions = dict[str, Any]


def encode_prompts(backbone: Backbone, prompts: Sequence[str], *, guided: bool) -> Conditions:
    """What the denoiser is told beside latents and timestep: of `prompts`, and if guided of as many empty ones."""
    pipeline: Any = backbone.pipeline
    conditional, unconditional = pipeline.encode_prompt(
        list(prompts), backbone.device, 1, guided, negative_prompt=[""] * len(prompts) if guided else None
    )
    return {"encoder_hidden_states": torch.cat([unconditional, conditional]) if guided else conditional}


def evaluate(denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
    """One evaluation of a denoiser: what it predicts for latents [batch, channels, h, w], in the same shape."""
    return denoiser(latents, timestep, **conditions, return_dict=False)[0]


def encode_images(backbone: Backbone, images: Tensor) -> Tensor:
    """Images [batch, 3, H, W] in [0, 1] to latents [batch, 4, h, w]: the mean of the VAE's posterior, scaled."""
    vae: Any = backbone.vae
    images = images.to(backbone.device, backbone.dtype) * 2 - 1
    return vae.encode(images).latent_dist.mode() * vae.config.scaling_factor


def decode_latents(backbone: Backbone, latents: Tensor) -> Tensor:
    """Latents [batch, 4, h, w] to images [batch, 3, H, W], float32 in [0, 1]."""
    vae: Any = backbone.vae
    images = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return (images.float() / 2 + 0.5).clamp(0, 1)

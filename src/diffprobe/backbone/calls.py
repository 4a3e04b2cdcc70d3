"""What is asked of a pipeline's parts: text and images encoded, latents decoded, noise added, the denoiser evaluated.

What a family of pipelines does its own way is in `families/`. Latents are [batch, channels, h, w] outside of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.families import Conditions, family_of
from diffprobe.backbone.finite import check_finite
from diffprobe.backbone.load import Backbone

__all__ = ["Conditions", "add_noise", "decode_latents", "encode_images", "encode_prompts", "evaluate", "scale_input"]


def encode_prompts(backbone: Backbone, prompts: Sequence[str], *, guided: bool) -> Conditions:
    """What the denoiser is told beside latents and timestep: of `prompts`, and if guided of as many empty ones.

    Tensors by name, each with one row an image; if guided, the rows without prompt come first. Empty for a model
    without text. `guided` is at most `backbone.guided`.
    """
    return backbone.family.conditions(backbone, prompts, guided)


def evaluate(denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
    """One evaluation of a denoiser: what it predicts for latents [batch, channels, h, w], in the same shape.

    Args:
        latents: after the scheduler's input scaling (`scale_input`).
        timestep: a number or tensor, one for all rows or [batch].
        conditions: from `encode_prompts`, with as many rows as the latents.
    """
    return family_of(denoiser).evaluate(denoiser, latents, timestep, conditions)


def encode_images(backbone: Backbone, images: Tensor) -> Tensor:
    """Images [batch, 3, H, W] in [0, 1] to latents [batch, channels, h, w]: the mean of the VAE's posterior, scaled.

    For a model in pixel space the latents are the images in [-1, 1].

    Raises:
        NotFinite: the VAE gives NaN or infinity.
    """
    images = images.to(backbone.device, backbone.dtype) * 2 - 1
    latents = backbone.family.encode(backbone.vae, images).to(backbone.dtype)
    check_finite(backbone, {"the encoded image": latents}, images=len(images), network=backbone.vae)
    return latents


def decode_latents(backbone: Backbone, latents: Tensor) -> Tensor:
    """Latents [batch, channels, h, w] to images [batch, 3, H, W], float32 in [0, 1].

    Raises:
        NotFinite: the VAE gives NaN, or infinity, which would be white or black.
    """
    images = backbone.family.decode(backbone.vae, latents)
    check_finite(backbone, {"the decoded image": images}, images=len(latents), network=backbone.vae)
    return (images.float() / 2 + 0.5).clamp(0, 1)


def add_noise(backbone: Backbone, clean: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
    """Clean latents with noise, as a trajectory has them at a timestep: what `TrajectoryStep.noisy` is.

    Some schedulers (LMS, Euler) keep latents as clean + sigma * noise and scale them only for the denoiser: so give it
    `scale_input(backbone, noisy, timesteps)`, which is sqrt(alpha) * clean + sqrt(1 - alpha) * noise with all of them,
    or the straight mixture of a flow-matching model.

    Args:
        clean: [batch, channels, h, w], from `encode_images`.
        noise: of the same shape, standard normal.
        timesteps: a number or tensor, one for all rows or [batch]: in [0, 1000), fractions too; in (0, 1000] for flow
            matching, where 0 is no noise at all.

    Returns:
        Noisy latents of the shape and precision of `clean`.
    """
    if backbone.family.flow_matching:
        steps = backbone.pipeline.scheduler.config.num_train_timesteps
        share = _of_rows(timesteps, clean) / steps
        mixed = (1 - share) * clean.float() + share * noise.float()
    else:
        sigma = _sigma(backbone, timesteps, clean)
        mixed = clean.float() + sigma * noise.float()
        if not _latents_carry_sigma(backbone.pipeline.scheduler):
            mixed = mixed / (1 + sigma**2).sqrt()
    return mixed.to(clean.dtype)


def scale_input(backbone: Backbone, noisy: Tensor, timesteps: Any) -> Tensor:
    """The denoiser's input for noisy latents: the scheduler's `scale_model_input`, but at any timesteps.

    Args:
        noisy: [batch, channels, h, w], from `add_noise`, or a trajectory's.
        timesteps: as of `add_noise`.
    """
    if not _latents_carry_sigma(backbone.pipeline.scheduler):
        return noisy
    return (noisy.float() / (1 + _sigma(backbone, timesteps, noisy) ** 2).sqrt()).to(noisy.dtype)


def _latents_carry_sigma(scheduler: Any) -> bool:
    """Whether a scheduler's latents are clean + sigma * noise: such schedulers mark that they were asked to scale."""
    return hasattr(scheduler, "is_scale_input_called")


def _sigma(backbone: Backbone, timesteps: Any, like: Tensor) -> Tensor:
    """The standard deviation of noise on clean latents of scale 1, linear between whole timesteps, [batch, 1, 1, 1]."""
    alphas = backbone.pipeline.scheduler.alphas_cumprod.to(like.device)
    table = ((1 - alphas) / alphas.clamp(min=2**-24)).sqrt()  # a schedule may end in pure noise
    rows = _of_rows(timesteps, like).clamp(0, len(table) - 1)
    below = rows.floor().long()
    above = (below + 1).clamp(max=len(table) - 1)
    return torch.lerp(table[below], table[above], rows - below)


def _of_rows(timesteps: Any, like: Tensor) -> Tensor:
    """A timestep for each row, [batch, 1, 1, 1]."""
    rows = torch.as_tensor(timesteps, dtype=torch.float32, device=like.device)
    return rows.expand(len(like)).view(-1, 1, 1, 1)

"""Stable Diffusion 1.x, 2.x and XL: a U-Net that looks at the text by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffprobe.backbone.families.base import EXAMPLE_TOKENS, Conditions, Family, guidance_rows
from diffprobe.errors import UserError

# Inputs of the U-Net in a dictionary of their own.
ADDED = ("text_embeds", "time_ids")


class StableDiffusion(Family):
    """One text encoder. Whether the U-Net predicts noise or v, the scheduler's config says."""

    pipeline = "StableDiffusionPipeline"
    load_options: ClassVar = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None}

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        pipeline: Any = backbone.pipeline
        conditional, unconditional = pipeline.encode_prompt(
            list(prompts), backbone.device, 1, guided, negative_prompt=[""] * len(prompts) if guided else None
        )
        return {"encoder_hidden_states": guidance_rows(unconditional, conditional, guided)}

    def example(self, config: Any) -> Conditions:
        """Raises UserError if the U-Net needs other inputs than Stable Diffusion 1, 2 or XL (upscalers do)."""
        added = config.get("addition_embed_type")
        known = {
            "addition_embed_type": (None, "text_time"),
            "class_embed_type": (None,),
            "num_class_embeds": (None,),
            "time_cond_proj_dim": (None,),  # an embedding of the guidance, in distilled models
        }
        for key, values in known.items():
            if config.get(key) not in values:
                raise UserError(f"a U-Net with {key}={config[key]!r} needs more than noise and text: unsupported")
        width = config.get("encoder_hid_dim") or config["cross_attention_dim"]
        conditions = {"encoder_hidden_states": torch.empty(1, EXAMPLE_TOKENS, width)}
        if added == "text_time":
            pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
            conditions |= {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
        return conditions

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        plain = {key: value for key, value in conditions.items() if key not in ADDED}
        added = {key: value for key, value in conditions.items() if key in ADDED}
        return denoiser(latents, timestep, **plain, added_cond_kwargs=added or None, return_dict=False)[0]


class StableDiffusionXL(StableDiffusion):
    """Two text encoders; further inputs are their pooled text and the image's size, given as never cropped."""

    pipeline = "StableDiffusionXLPipeline"
    load_options: ClassVar = {"add_watermarker": False}
    vae_needs_float32 = True

    def unconditional_is_empty_prompt(self, settings: Mapping[str, Any]) -> bool:
        return not settings["force_zeros_for_empty_prompt"]

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        pipeline: Any = backbone.pipeline
        # Without a negative prompt, the model's config decides between zeros and the empty prompt.
        text, empty, pooled, empty_pooled = pipeline.encode_prompt(
            list(prompts), device=backbone.device, num_images_per_prompt=1, do_classifier_free_guidance=guided
        )
        height, width = (side * pipeline.vae_scale_factor for side in backbone.latent_shape[1:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=text.dtype, device=backbone.device)
        return {
            "encoder_hidden_states": guidance_rows(empty, text, guided),
            "text_embeds": guidance_rows(empty_pooled, pooled, guided),
            "time_ids": sizes.repeat(2 * len(prompts) if guided else len(prompts), 1),
        }

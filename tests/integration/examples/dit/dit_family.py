"""A family of one's own, in one file: DiT (Peebles and Xie 2023), whose prompts are numbers of ImageNet's classes.

PYTHONPATH=THIS_FOLDER python train.py model=local model.path=FOLDER +model.family._target_=dit_family.DiT ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.backbone.families.base import Conditions, Family, row_timesteps


class DiT(Family):
    """A transformer that is told a class; the empty prompt is the class that stands for none."""

    pipeline = "DiTPipeline"
    denoiser_part = "transformer"
    denoisers = ("DiTTransformer2DModel",)

    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        none = int(backbone.denoiser.config["num_embeds_ada_norm"])
        labels = [int(prompt) if prompt else none for prompt in prompts]
        rows = [none] * len(labels) * guided + labels
        return {"class_labels": torch.tensor(rows, device=backbone.device)}

    def example(self, config: Any) -> Conditions:
        return {"class_labels": torch.zeros(1, dtype=torch.long)}

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        predicted = denoiser(latents, row_timesteps(timestep, latents), **conditions, return_dict=False)[0]
        return predicted[:, : latents.shape[1]]  # the learned variance comes after

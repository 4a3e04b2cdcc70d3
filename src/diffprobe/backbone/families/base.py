"""What a family of pipelines does its own way, behind the few functions that the rest of the project calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

# What the denoiser is told beside latents and timestep: by name, each with one row an image; of a guidance batch
# the rows without prompt come first.
Conditions = dict[str, Tensor]

# Length of a made-up text: longer than any prompt's and prime, so that text is never taken for height x width tokens.
EXAMPLE_TOKENS = 251


class LoadedPipeline(Protocol):
    """What a family may ask of a backbone; see `diffprobe.backbone.load.Backbone`."""

    pipeline: Any
    guidance: float

    @property
    def device(self) -> torch.device: ...

    @property
    def denoiser(self) -> Any: ...

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...


class Family(ABC):
    """The common case: a denoiser over the latents of a VAE, told what a text says, guided by an empty prompt.

    Attributes:
        pipeline: the class of diffusers that loads the model.
        load_options: what else `from_pretrained` is given.
        denoiser_part: attribute and folder of the denoiser in a pipeline.
        denoisers: the denoiser's classes.
        vae_needs_float32: whether the VAE overflows in half precision and has to stay in float32.
        flow_matching: whether noise is mixed in along a straight line (flow matching), not with a diffusion schedule.
        eta: what the pipeline tells samplers that take one (DDIM, TCD); None where it tells them nothing.
        kinds: patterns of layer names with their kind that hold in this family alone.
    """

    pipeline: ClassVar[str]
    load_options: ClassVar[Mapping[str, Any]] = {}
    denoiser_part: ClassVar[str] = "unet"
    denoisers: ClassVar[tuple[str, ...]] = ("UNet2DConditionModel",)
    vae_needs_float32: ClassVar[bool] = False
    flow_matching: ClassVar[bool] = False
    eta: ClassVar[float | None] = 0.0
    kinds: ClassVar[tuple[tuple[str, str], ...]] = ()

    def latent_shape(self, config: Any) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents, from the denoiser's config."""
        size = config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return config["in_channels"], height, width

    def size_step(self, config: Any) -> int:
        """What height and width of the latents must be multiples of."""
        return config["patch_size"]

    def guided(self, guidance: float) -> bool:
        """Whether the denoiser runs on a guidance batch, without and with prompt."""
        return guidance > 1

    def embeds_guidance(self, config: Any) -> bool:
        """Whether guidance is a number that the denoiser of this config is told."""
        return False

    def unconditional_is_empty_prompt(self, settings: Mapping[str, Any]) -> bool:
        """Whether the rows without prompt of a guidance batch are those of the prompt '', by the pipeline's settings.

        If so, guidance does nothing to an image of the empty prompt.
        """
        return True

    @abstractmethod
    def conditions(self, backbone: LoadedPipeline, prompts: Sequence[str], guided: bool) -> Conditions:
        """See `diffprobe.backbone.capture.encode_prompts`."""

    @abstractmethod
    def example(self, config: Any) -> Conditions:
        """Conditions for one image, without content, on the current device."""

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        """See `diffprobe.backbone.capture.evaluate`."""
        return denoiser(latents, timestep, **conditions, return_dict=False)[0]

    def set_timesteps(self, scheduler: Any, steps: int, backbone: LoadedPipeline) -> None:
        """Sets the scheduler to the start of a trajectory, as the pipeline does."""
        scheduler.set_timesteps(steps, device=backbone.device)

    def encode(self, vae: Any, images: Tensor) -> Tensor:
        """Images [batch, 3, H, W] in [-1, 1] to latents [batch, channels, h, w]."""
        latents = vae.encode(images.to(vae.dtype)).latent_dist.mode()
        return (latents - (vae.config.shift_factor or 0)) * vae.config.scaling_factor

    def decode(self, vae: Any, latents: Tensor) -> Tensor:
        """Latents [batch, channels, h, w] to images [batch, 3, H, W] in about [-1, 1]."""
        latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0)
        return vae.decode(latents.to(vae.dtype), return_dict=False)[0]


def guidance_rows(unconditional: Tensor | None, conditional: Tensor, guided: bool) -> Tensor:
    """The rows of a guidance batch, or the conditional rows alone."""
    return torch.cat([unconditional, conditional]) if guided and unconditional is not None else conditional


def row_timesteps(timestep: Any, latents: Tensor) -> Tensor:
    """A timestep, or one for each row, as a tensor [batch]: transformers do not broadcast it themselves."""
    return torch.as_tensor(timestep, device=latents.device).expand(len(latents))


def resolution_shift(config: Any, tokens: int, largest: float) -> float:
    """How far a flow-matching scheduler moves its timesteps towards noise for images of so many tokens (its mu).

    `largest` is the pipeline's value of `max_shift` where the scheduler's config has none.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", largest)
    slope = (high - low) / (many - few)
    return tokens * slope + (low - slope * few)

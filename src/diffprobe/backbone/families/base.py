"""What a family of pipelines does in its own way: the interface, and the common case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

# The denoiser's inputs beside latents and timestep, by name, one row an image; in a guidance batch the rows without
# prompt come first.
Conditions = dict[str, Tensor]

# Length of a made-up text: longer than any prompt and prime, so that text is never taken for height x width tokens.
EXAMPLE_TOKENS = 251


class Family(ABC):
    """The common case: a denoiser of a VAE's latents with a text encoder and classifier-free guidance.

    Methods get the `diffprobe.backbone.load.Backbone` that they are to work on.

    Attributes:
        pipeline: class of diffusers that loads the model.
        load_options: further arguments of its `from_pretrained`.
        denoiser_part: attribute and folder of the denoiser in a pipeline.
        denoisers: classes of the denoiser.
        vae_needs_float32: whether the VAE overflows in float16.
        flow_matching: whether latents are noised along a straight line (flow matching), not by a schedule of betas.
        eta: what the pipeline gives samplers that take one (DDIM, TCD); None where it gives none.
    """

    pipeline: ClassVar[str]
    load_options: ClassVar[Mapping[str, Any]] = {}
    denoiser_part: ClassVar[str] = "unet"
    denoisers: ClassVar[tuple[str, ...]] = ("UNet2DConditionModel",)
    vae_needs_float32: ClassVar[bool] = False
    flow_matching: ClassVar[bool] = False
    eta: ClassVar[float | None] = 0.0

    def latent_shape(self, config: Any) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents, from the denoiser's config."""
        size = config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return config["in_channels"], height, width

    def size_step(self, config: Any) -> int:
        """What height and width of the latents must be multiples of: a transformer's patch, a U-Net's downsampling."""
        return config.get("patch_size") or 2 ** (len(config["block_out_channels"]) - 1)

    def guided(self, guidance: float) -> bool:
        """Whether the denoiser runs on a guidance batch, without and with prompt."""
        return guidance > 1

    def embeds_guidance(self, config: Any) -> bool:
        """Whether guidance is an input of the denoiser."""
        return False

    def unconditional_is_empty_prompt(self, settings: Mapping[str, Any]) -> bool:
        """Whether a guidance batch's rows without prompt are those of the prompt '', by the pipeline's settings."""
        return True

    @abstractmethod
    def conditions(self, backbone: Any, prompts: Sequence[str], guided: bool) -> Conditions:
        """See `diffprobe.backbone.capture.encode_prompts`."""

    @abstractmethod
    def example(self, config: Any) -> Conditions:
        """Conditions for one image, without content, on the current device."""

    def evaluate(self, denoiser: nn.Module, latents: Tensor, timestep: Any, conditions: Conditions) -> Tensor:
        """See `diffprobe.backbone.trajectory.evaluate`."""
        return denoiser(latents, timestep, **conditions, return_dict=False)[0]

    def set_timesteps(self, scheduler: Any, steps: int, backbone: Any) -> None:
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
    """One timestep for all rows, or one for each, as a tensor [batch]: transformers do not broadcast it."""
    return torch.as_tensor(timestep, device=latents.device).expand(len(latents))


def resolution_shift(config: Any, latents: tuple[int, int, int], patch: int, max_shift: float) -> float:
    """The shift (mu) of a flow-matching scheduler's timesteps towards noise, which grows with the image's tokens.

    Args:
        config: of the scheduler.
        latents: channels, height and width of one image's latents.
        patch: height and width in latents of a token.
        max_shift: of the pipeline, where the config has none.
    """
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    _, height, width = latents
    return calculate_shift(
        (height // patch) * (width // patch),
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", max_shift),
    )

"""Trains the VAE: reconstruction in pixels with a faint pull of the posterior to the unit normal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.pocket.architecture import SCALING_FACTOR, build_autoencoder
from diffprobe.pocket.training.fit import PocketModule, fit

KL_WEIGHT = 3e-5


class AutoencoderModule(PocketModule):
    """Mean squared error in [-1, 1] plus `KL_WEIGHT` times the mean KL divergence per latent element."""

    def __init__(self, images: Tensor, steps: int, batch_size: int = 16, learning_rate: float = 2e-3) -> None:
        super().__init__(steps, batch_size, learning_rate)
        self.images = images
        self.autoencoder: Any = build_autoencoder()
        self.autoencoder.to(memory_format=torch.channels_last)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        pictures = to_signed(self.images[self.rows(self.generator(), len(self.images))].to(self.device))
        posterior = self.autoencoder.encode(pictures).latent_dist
        restored = self.autoencoder.decode(posterior.sample()).sample
        error = functional.mse_loss(restored.float(), pictures)
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        self.log_dict({"mse": error, "kl": divergence}, prog_bar=True)
        return error + KL_WEIGHT * divergence


def to_signed(images: Tensor) -> Tensor:
    """uint8 pictures to floats in [-1, 1], as a diffusers VAE takes them."""
    return images.float() / 127.5 - 1


def train_autoencoder(images: Tensor, folder: Path, steps: int, devices: int, precision: str) -> None:
    """Trains on `images` [scenes, 3, 64, 64] uint8 and saves the VAE to `folder/vae`, latents standardised."""
    module = AutoencoderModule(images, steps)
    fit(module, folder, devices, precision)
    if module.global_rank == 0:
        autoencoder = module.autoencoder.eval().to(memory_format=torch.contiguous_format)
        standardise(autoencoder, images[:512])
        autoencoder.save_pretrained(folder / "vae")


@torch.no_grad()
def standardise(autoencoder: Any, images: Tensor) -> None:
    """Folds a shift and scale of each latent channel into the 1x1 convolutions around the latent.

    Afterwards scaled latents have mean 0 and standard deviation 1 with Stable Diffusion's own scaling factor, and
    the reconstruction is unchanged.
    """
    latents = torch.cat([autoencoder.encode(to_signed(batch)).latent_dist.mean for batch in images.split(64)])
    mean = latents.mean((0, 2, 3))
    target = 1 / SCALING_FACTOR
    gain = target / latents.std((0, 2, 3))
    channels = len(mean)
    quant, post_quant = autoencoder.quant_conv, autoencoder.post_quant_conv
    quant.weight[:channels] *= gain[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) * gain
    quant.bias[channels:] += 2 * gain.log()  # the log variance
    post_quant.bias += (post_quant.weight[:, :, 0, 0] * mean).sum(1)
    post_quant.weight /= gain[None, :, None, None]

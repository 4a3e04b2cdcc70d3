"""Training of the pipeline's networks: text encoder, VAE, and the U-Net on their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffprobe.pocket.networks import (
    SCALING_FACTOR,
    SLOTS,
    TEXT_WIDTH,
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
)
from diffprobe.pocket.scenes import COLOURS, SHAPES, SceneObject, describe
from diffprobe.pocket.training.fit import Muon, PocketModule

KL_WEIGHT = 3e-5
CAPTION_DROPOUT = 0.1
AVERAGE_DECAY = 0.999
OUTER = ("conv_in", "conv_out", "time_embedding")  # of the U-Net, trained with AdamW
MOST_WEIGHT, LEAST_WEIGHT = 5.0, 0.25


class TextModule(PocketModule):
    """Reads the attributes of every object from the tokens after the caption, by a linear map that is not kept."""

    def __init__(self, steps: int, batch_size: int = 128, learning_rate: float = 2e-3) -> None:
        super().__init__(steps, batch_size, learning_rate, weight_decay=0.01)
        self.tokenizer = build_tokenizer()
        self.text_encoder = build_text_encoder(len(self.tokenizer))
        self.attributes = torch.nn.Linear(TEXT_WIDTH, SLOTS * (len(COLOURS) + len(SHAPES) + 2))

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        captions, colours, shapes = random_captions(self.global_step, self.batch_size)
        tokens = self.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids.to(self.device)
        states = self.text_encoder(tokens).last_hidden_state
        ended = tokens == self.tokenizer.eos_token_id  # the end and the padding behind it see all words
        logits = self.attributes(states[ended]).unflatten(-1, (SLOTS, -1))
        repeats = ended.sum(1)
        by_colour, by_shape = logits.split((len(COLOURS) + 1, len(SHAPES) + 1), -1)
        loss = functional.cross_entropy(by_colour.flatten(0, 1), colours.repeat_interleave(repeats, 0).flatten())
        loss = loss + functional.cross_entropy(by_shape.flatten(0, 1), shapes.repeat_interleave(repeats, 0).flatten())
        self.log("loss", loss, prog_bar=True)
        return loss

    def save(self, folder: Path) -> None:
        self.text_encoder.eval().save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")


def random_captions(seed: int, count: int) -> tuple[list[str], Tensor, Tensor]:
    """Captions with colour and shape numbers [count, 3]; the number after the last stands for 'no object'."""
    random = np.random.default_rng((11, seed))
    colours = np.full((count, SLOTS), len(COLOURS))
    shapes = np.full((count, SLOTS), len(SHAPES))
    captions = []
    for row in range(count):
        objects = int(random.integers(1, SLOTS + 1))
        colours[row, :objects] = random.integers(len(COLOURS), size=objects)
        shapes[row, :objects] = random.integers(len(SHAPES), size=objects)
        items = [
            SceneObject(SHAPES[shape], COLOURS[colour], (0, 0, 0), (1, 1, 1), 0, (0, 0, 0))
            for colour, shape in zip(colours[row, :objects], shapes[row, :objects], strict=True)
        ]
        captions.append(describe(items, int(random.integers(2))))
    return captions, torch.from_numpy(colours), torch.from_numpy(shapes)


class AutoencoderModule(PocketModule):
    """Mean squared error in [-1, 1] plus `KL_WEIGHT` times the mean KL divergence per latent element."""

    def __init__(self, images: Tensor, steps: int, batch_size: int = 16, learning_rate: float = 2e-3) -> None:
        super().__init__(steps, batch_size, learning_rate)
        self.images = images
        self.autoencoder: Any = build_autoencoder()
        self.autoencoder.to(memory_format=torch.channels_last)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        images = to_signed(self.images[self.rows(self.generator(), len(self.images))].to(self.device))
        posterior = self.autoencoder.encode(images).latent_dist
        restored = self.autoencoder.decode(posterior.sample()).sample
        error = functional.mse_loss(restored.float(), images)
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
        self.log_dict({"mse": error, "kl": divergence}, prog_bar=True)
        return error + KL_WEIGHT * divergence

    def save(self, folder: Path) -> None:
        autoencoder = self.autoencoder.eval().to(memory_format=torch.contiguous_format)
        standardise(autoencoder, self.images[:512])
        autoencoder.save_pretrained(folder / "vae")


def to_signed(images: Tensor) -> Tensor:
    """uint8 images to floats in [-1, 1], the input of a diffusers VAE."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def standardise(autoencoder: Any, images: Tensor) -> None:
    """Folds a shift and scale of each latent channel into the 1x1 convolutions around the latent.

    Afterwards scaled latents have mean 0 and standard deviation 1 with Stable Diffusion's own scaling factor, and
    the reconstruction is unchanged.
    """
    latents = torch.cat([autoencoder.encode(to_signed(batch)).latent_dist.mean for batch in images.split(64)])
    mean = latents.mean((0, 2, 3))
    gain = 1 / SCALING_FACTOR / latents.std((0, 2, 3))
    channels = len(mean)
    quant, post_quant = autoencoder.quant_conv, autoencoder.post_quant_conv
    quant.weight[:channels] *= gain[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) * gain
    quant.bias[channels:] += 2 * gain.log()  # the log variance
    post_quant.bias += (post_quant.weight[:, :, 0, 0] * mean).sum(1)
    post_quant.weight /= gain[None, :, None, None]


@torch.no_grad()
def encode(autoencoder: Any, images: Tensor) -> Tensor:
    """Scaled latent means [scenes, 4, 16, 16] float16 of uint8 images, on the CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = autoencoder.to(device)
    batches = [
        (autoencoder.encode(to_signed(batch.to(device))).latent_dist.mean * SCALING_FACTOR).half().cpu()
        for batch in images.split(20)
    ]
    return torch.cat(batches)


class DenoiserModule(PocketModule):
    """Predicts v (Salimans and Ho 2022, appendix D) under a weight that keeps both ends of the schedule in view.

    In terms of the clean latent the weight is min(SNR + 0.25, 5): min-SNR (Hang et al. 2023) at the low-noise end, and
    a floor at the high-noise end, where the layout is decided.

    Args:
        latents: [scenes, 4, 16, 16].
        tokens: [scenes + 1, tokens], of the captions and of the empty caption.
    """

    def __init__(
        self, latents: Tensor, tokens: Tensor, text_encoder: torch.nn.Module, steps: int, batch_size: int = 16
    ) -> None:
        super().__init__(steps, batch_size, learning_rate=1e-3, weight_decay=0.01)
        self.latents, self.tokens = latents, tokens
        self.denoiser: Any = build_denoiser()
        self.denoiser.to(memory_format=torch.channels_last)
        start_gently(self.denoiser)
        if not torch.cuda.is_available():  # on a CPU the fused attention's backward takes 40 % of a step
            self.denoiser.set_attn_processor(AttnProcessor())
        self.average = AveragedModel(self.denoiser, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY))
        self.average.requires_grad_(False)
        self.text_encoder = text_encoder.requires_grad_(False).eval()
        self.alphas: Tensor
        self.register_buffer("alphas", build_scheduler().alphas_cumprod, persistent=False)

    def optimizer(self) -> torch.optim.Optimizer:
        """Muon between the first and the last layer, where AdamW learns more slowly."""
        named = [(name, weight) for name, weight in self.named_parameters() if weight.requires_grad]
        weights = [weight for name, weight in named if weight.ndim > 1 and not any(part in name for part in OUTER)]
        inner = {id(weight) for weight in weights}
        others = [weight for _, weight in named if id(weight) not in inner]
        return Muon(weights, others, self.learning_rate, self.weight_decay)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        generator = self.generator()
        rows = self.rows(generator, len(self.latents))
        clean = self.latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        strata = (torch.arange(self.batch_size) + torch.rand(self.batch_size, generator=generator)) / self.batch_size
        timesteps = (strata * len(self.alphas)).long()
        dropped = torch.rand(self.batch_size, generator=generator) < CAPTION_DROPOUT
        tokens = torch.where(dropped[:, None], self.tokens[-1], self.tokens[rows])
        clean, noise, timesteps, tokens = (x.to(self.device) for x in (clean, noise, timesteps, tokens))

        alpha = self.alphas[timesteps][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        with torch.no_grad():
            context = self.text_encoder(tokens).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        predicted = self.denoiser(noisy, timesteps, context).sample.float()
        error = functional.mse_loss(predicted, velocity, reduction="none").mean((1, 2, 3))
        ratio = alpha.flatten() / (1 - alpha.flatten())
        loss = (error * (ratio + LEAST_WEIGHT).clamp(max=MOST_WEIGHT) / (ratio + 1)).mean()
        self.log_dict({"loss": loss, "error": error.mean()}, prog_bar=True)
        return loss

    def on_train_batch_end(self, *arguments: object) -> None:
        self.average.update_parameters(self.denoiser)

    def on_train_epoch_start(self) -> None:
        self.text_encoder.eval()

    def save(self, folder: Path) -> None:
        averaged: Any = self.average.module.eval()
        averaged.to(memory_format=torch.contiguous_format).save_pretrained(folder / "unet")


def start_gently(denoiser: Any) -> None:
    """Initial weights for short training: residual branches start at zero, self-attention starts on like tokens.

    With the default initialisation the top self-attention stays a near average over the image, since its queries and
    keys are small and unrelated. Equal ones, twice as large, begin as a similarity.
    """
    for name, module in denoiser.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
        if name.endswith("attn1"):
            with torch.no_grad():
                module.to_q.weight *= 2
                module.to_k.weight.copy_(module.to_q.weight)

"""The modules that train each network: text encoder, VAE, the U-Net on their outputs, labeler and classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffprobe.pocket.networks import (
    SCALING_FACTOR,
    SLOTS,
    TEXT_WIDTH,
    ClassifierNetwork,
    LabelerNetwork,
    SurfaceNetwork,
    build_autoencoder,
    build_denoiser,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
)
from diffprobe.pocket.scenes import COLOURS, SHAPES, SceneObject, describe
from diffprobe.pocket.training.fit import Muon, PocketModule, SceneArrays

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
        self.attributes = nn.Linear(TEXT_WIDTH, SLOTS * (len(COLOURS) + len(SHAPES) + 2))

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
        self, latents: Tensor, tokens: Tensor, text_encoder: nn.Module, steps: int, batch_size: int = 16
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
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        if name.endswith("attn1"):
            with torch.no_grad():
                module.to_q.weight *= 2
                module.to_k.weight.copy_(module.to_q.weight)


class _ImageModule(PocketModule):
    """A network of images, trained on those of scenes and on degraded copies of the first ones; saved in float16."""

    network: nn.Module
    file: str

    def __init__(self, scenes: SceneArrays, degraded: Tensor, steps: int, batch_size: int, weight_decay: float) -> None:
        super().__init__(steps, batch_size, learning_rate=2e-3, weight_decay=weight_decay)
        self.scenes, self.degraded = scenes, degraded

    def images(self) -> tuple[Tensor, Tensor]:
        """A batch of images and their scene numbers."""
        images, rows = mixed_images(self.scenes.images, self.degraded, self.batch_size, self.generator())
        return images.to(self.device).contiguous(memory_format=torch.channels_last), rows

    def save(self, folder: Path) -> None:
        weights = {name: value.half().contiguous() for name, value in self.network.state_dict().items()}
        save_file(weights, folder / self.file)


class LabelerModule(_ImageModule):
    """Cross entropy and soft Dice for saliency; squared error and 1 - Pearson correlation for depth and shading.

    The correlation within each image does not depend on scale and shift, as in the training of relative depth models
    (Ranftl et al. 2020).
    """

    network: LabelerNetwork
    file = "labeler.safetensors"

    def __init__(self, scenes: SceneArrays, degraded: Tensor, steps: int, batch_size: int = 16) -> None:
        super().__init__(scenes, degraded, steps, batch_size, weight_decay=0.01)
        self.network = LabelerNetwork()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for slot, values in ((1, scenes.depth), (2, scenes.shading)):
            self.network.mean[slot] = values[:2000].float().mean()
            self.network.scale[slot] = values[:2000].float().std()

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        images, rows = self.images()
        labels = torch.stack([getattr(self.scenes, name)[rows].float() for name in ("salient", "depth", "shading")], 1)
        labels = labels.to(self.device)
        logit, depth, shading = self.network(images).float().unbind(1)
        salient = labels[:, 0]
        scaled = (labels - self.network.mean[:, None, None]) / self.network.scale[:, None, None]
        overlap = 2 * (logit.sigmoid() * salient).sum((1, 2)) / (logit.sigmoid().sum((1, 2)) + salient.sum((1, 2)) + 1)
        parts = {
            "saliency": functional.binary_cross_entropy_with_logits(logit, salient) + (1 - overlap).mean(),
            "depth": functional.mse_loss(depth, scaled[:, 1]) + disagreement(depth, scaled[:, 1]),
            "shading": functional.mse_loss(shading, scaled[:, 2]) + disagreement(shading, scaled[:, 2]),
        }
        self.log_dict(parts, prog_bar=True)
        return sum(parts.values())  # type: ignore[return-value]


class SurfaceModule(_ImageModule):
    """The second decoder, on the features of the trained labeler, which stays as it is: cosine distance for normals,
    squared error and 1 - Pearson correlation for albedo, cross entropy for classes, cross entropy and soft Dice for
    shadow."""

    network: SurfaceNetwork
    file = "surfaces.safetensors"

    def __init__(
        self, scenes: SceneArrays, degraded: Tensor, steps: int, labeler: LabelerNetwork, batch_size: int = 16
    ) -> None:
        super().__init__(scenes, degraded, steps, batch_size, weight_decay=0.01)
        self.labeler = labeler.requires_grad_(False).eval()
        self.network = SurfaceNetwork()
        for network in (self.labeler, self.network):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        albedo = scenes.albedo[:2000].float()
        self.network.mean.fill_(albedo.mean())
        self.network.scale.fill_(albedo.std())

    def on_train_epoch_start(self) -> None:
        self.labeler.eval()

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        images, rows = self.images()
        with torch.no_grad():
            features = self.labeler.features(images)
        outputs, scenes = self.network(features), self.scenes
        normals = functional.normalize(scenes.normals[rows].float(), dim=1).to(self.device)
        albedo = (scenes.albedo[rows].float().to(self.device) - self.network.mean) / self.network.scale
        shadow, logit = scenes.shadow[rows].float().to(self.device), outputs["shadow"][:, 0]
        share, reflected = logit.sigmoid(), outputs["albedo"][:, 0]
        overlap = 2 * (share * shadow).sum((1, 2)) / (share.sum((1, 2)) + shadow.sum((1, 2)) + 1)
        parts = {
            "normals": 2 * (1 - functional.cosine_similarity(outputs["normals"], normals)).mean(),
            "albedo": functional.mse_loss(reflected, albedo) + disagreement(reflected, albedo),
            "shape": functional.cross_entropy(outputs["shape"], scenes.shape[rows].long().to(self.device)),
            "colour": functional.cross_entropy(outputs["colour"], scenes.colour[rows].long().to(self.device)),
            "shadow": functional.binary_cross_entropy_with_logits(logit, shadow) + (1 - overlap).mean(),
        }
        self.log_dict(parts, prog_bar=True)
        return sum(parts.values())  # type: ignore[return-value]


class ClassifierModule(_ImageModule):
    """Cross entropy of colour and shape in each of the three places."""

    network: ClassifierNetwork
    file = "classifier.safetensors"

    def __init__(self, scenes: SceneArrays, degraded: Tensor, steps: int, batch_size: int = 32) -> None:
        super().__init__(scenes, degraded, steps, batch_size, weight_decay=0.02)
        self.network = ClassifierNetwork()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        images, rows = self.images()
        colours, shapes = (logits.float().flatten(0, 1) for logits in self.network(images))
        wanted_colours = numbered(self.scenes.colours[rows], len(COLOURS)).flatten().to(self.device)
        wanted_shapes = numbered(self.scenes.classes[rows], len(SHAPES)).flatten().to(self.device)
        loss = functional.cross_entropy(colours, wanted_colours) + functional.cross_entropy(shapes, wanted_shapes)
        self.log("loss", loss, prog_bar=True)
        return loss


def disagreement(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over images of 1 - Pearson correlation of maps [batch, height, width]."""
    predicted = predicted.flatten(1) - predicted.mean((1, 2))[:, None]
    target = target.flatten(1) - target.mean((1, 2))[:, None]
    return 1 - functional.cosine_similarity(predicted, target).mean()


def numbered(classes: Tensor, absent: int) -> Tensor:
    """Class numbers with `absent` where there is no object (-1)."""
    return torch.where(classes < 0, absent, classes)


def mixed_images(images: Tensor, degraded: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` images in [0, 1] and their scene numbers: three quarters clean, with jitter and noise, one degraded."""
    poor = count // 4
    rows = torch.cat(
        [
            torch.randint(len(images), (count - poor,), generator=generator),
            torch.randint(len(degraded), (poor,), generator=generator),
        ]
    )
    clean = images[rows[: count - poor]].float() / 255
    gain = 1 + 0.1 * torch.randn(len(clean), 3, 1, 1, generator=generator)
    noise = 0.03 * torch.rand(len(clean), 1, 1, 1, generator=generator) * torch.randn(clean.shape, generator=generator)
    mixed = torch.cat([clean * gain + noise, degraded[rows[count - poor :]].float() / 255])
    return mixed.clamp(0, 1), rows


@torch.no_grad()
def degrade(autoencoder: Any, latents: Tensor) -> Tensor:
    """Images [scenes, 3, 64, 64] uint8 decoded from latents with noise of up to twice their standard deviation."""
    generator = torch.Generator().manual_seed(5)
    images = []
    for batch in latents.float().split(50):
        sigma = 2 * torch.rand(len(batch), 1, 1, 1, generator=generator) ** 2
        noisy = batch + sigma * torch.randn(batch.shape, generator=generator)
        noisy = noisy / (1 + sigma.square()).sqrt() if len(images) % 2 else noisy
        decoded = autoencoder.decode(noisy / autoencoder.config.scaling_factor).sample.float()
        images.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(images)

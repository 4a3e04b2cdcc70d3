"""Training of the labeler and the classifier, on clean images and on degraded ones, as of an unfinished denoising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from diffprobe.pocket.networks import ClassifierNetwork, LabelerNetwork
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.pocket.training.fit import PocketModule, SceneArrays


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

"""Trains the labeler on rendered scenes, clean and degraded as the pictures of an unfinished denoising are.

Trains the classifier on the same pictures as the labeler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from diffprobe.pocket.networks import ClassifierNetwork, LabelerNetwork
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.pocket.shards import SceneArrays
from diffprobe.pocket.training.fit import PocketModule, fit


class LabelerModule(PocketModule):
    """Cross entropy and soft Dice for saliency; for depth and shading squared error and, as relative depth models are
    trained (Ranftl et al. 2020), agreement within each picture whatever its scale and shift: 1 - Pearson correlation.
    """

    def __init__(self, scenes: SceneArrays, degraded: Tensor, steps: int, batch_size: int = 16) -> None:
        super().__init__(steps, batch_size, learning_rate=2e-3, weight_decay=0.01)
        self.scenes, self.degraded = scenes, degraded
        self.labeler = LabelerNetwork()
        self.labeler.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for slot, values in ((1, scenes.depth), (2, scenes.shading)):
            self.labeler.mean[slot] = values[:2000].float().mean()
            self.labeler.scale[slot] = values[:2000].float().std()

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        generator = self.generator()
        images, rows = mixed_pictures(self.scenes.images, self.degraded, self.batch_size, generator)
        labels = torch.stack([getattr(self.scenes, name)[rows].float() for name in ("salient", "depth", "shading")], 1)
        images, labels = images.to(self.device), labels.to(self.device)
        logit, depth, shading = self.labeler(images.contiguous(memory_format=torch.channels_last)).float().unbind(1)
        salient = labels[:, 0]
        scaled = (labels - self.labeler.mean[:, None, None]) / self.labeler.scale[:, None, None]
        overlap = 2 * (logit.sigmoid() * salient).sum((1, 2)) / (logit.sigmoid().sum((1, 2)) + salient.sum((1, 2)) + 1)
        parts = {
            "saliency": functional.binary_cross_entropy_with_logits(logit, salient) + (1 - overlap).mean(),
            "depth": functional.mse_loss(depth, scaled[:, 1]) + disagreement(depth, scaled[:, 1]),
            "shading": functional.mse_loss(shading, scaled[:, 2]) + disagreement(shading, scaled[:, 2]),
        }
        self.log_dict(parts, prog_bar=True)
        return sum(parts.values())  # type: ignore[return-value]


def disagreement(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over pictures of 1 - Pearson correlation of maps [batch, height, width]."""
    predicted = predicted.flatten(1) - predicted.mean((1, 2))[:, None]
    target = target.flatten(1) - target.mean((1, 2))[:, None]
    return 1 - functional.cosine_similarity(predicted, target).mean()


def mixed_pictures(images: Tensor, degraded: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` pictures in [0, 1] and their scene numbers: three quarters clean, one quarter degraded.

    `degraded` holds a degraded copy of each of the first scenes. Clean pictures are jittered in brightness and noise.
    """
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
    pictures = torch.cat([clean * gain + noise, degraded[rows[count - poor :]].float() / 255])
    return pictures.clamp(0, 1), rows


@torch.no_grad()
def degrade(autoencoder: Any, latents: Tensor) -> Tensor:
    """Pictures [scenes, 3, 64, 64] uint8 decoded from latents to which noise of up to twice their spread was added."""
    generator = torch.Generator().manual_seed(5)
    pictures = []
    for batch in latents.float().split(50):
        sigma = 2 * torch.rand(len(batch), 1, 1, 1, generator=generator) ** 2
        noisy = batch + sigma * torch.randn(batch.shape, generator=generator)
        noisy = noisy / (1 + sigma.square()).sqrt() if len(pictures) % 2 else noisy
        decoded = autoencoder.decode(noisy / autoencoder.config.scaling_factor).sample.float()
        pictures.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8))
    return torch.cat(pictures)


def train_labeler(
    scenes: SceneArrays, degraded: Tensor, folder: Path, steps: int, devices: int, precision: str
) -> None:
    """Trains and saves `folder/labeler.safetensors` (float16)."""
    module = LabelerModule(scenes, degraded, steps)
    fit(module, folder, devices, precision)
    if module.global_rank == 0:
        save_half(module.labeler, folder / "labeler.safetensors")


def save_half(network: torch.nn.Module, path: Path) -> None:
    """Writes a network's weights in float16."""
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, path)


class ClassifierModule(PocketModule):
    """Cross entropy of colour and shape in each of the three places."""

    def __init__(self, scenes: SceneArrays, degraded: Tensor, steps: int, batch_size: int = 32) -> None:
        super().__init__(steps, batch_size, learning_rate=2e-3, weight_decay=0.02)
        self.scenes, self.degraded = scenes, degraded
        self.classifier = ClassifierNetwork()
        self.classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        images, rows = mixed_pictures(self.scenes.images, self.degraded, self.batch_size, self.generator())
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        colours, shapes = (logits.float().flatten(0, 1) for logits in self.classifier(images))
        wanted_colours = numbered(self.scenes.colours[rows], len(COLOURS)).flatten().to(self.device)
        wanted_shapes = numbered(self.scenes.classes[rows], len(SHAPES)).flatten().to(self.device)
        loss = functional.cross_entropy(colours, wanted_colours) + functional.cross_entropy(shapes, wanted_shapes)
        self.log("loss", loss, prog_bar=True)
        return loss


def numbered(classes: Tensor, absent: int) -> Tensor:
    """Class numbers with `absent` where there is no object (-1)."""
    return torch.where(classes < 0, absent, classes)


def train_classifier(
    scenes: SceneArrays, degraded: Tensor, folder: Path, steps: int, devices: int, precision: str
) -> None:
    """Trains and saves `folder/classifier.safetensors` (float16)."""
    module = ClassifierModule(scenes, degraded, steps)
    fit(module, folder, devices, precision)
    if module.global_rank == 0:
        save_half(module.classifier, folder / "classifier.safetensors")

"""Trains the classifier on the same pictures as the labeler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from diffprobe.pocket.networks import ClassifierNetwork
from diffprobe.pocket.scenes import COLOURS, SHAPES
from diffprobe.pocket.shards import SceneArrays
from diffprobe.pocket.training.fit import PocketModule, fit
from diffprobe.pocket.training.labeler import mixed_pictures, save_half


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

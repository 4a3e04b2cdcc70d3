"""Any image classifier of transformers: ResNet, ConvNeXt, ViT and their like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from diffprobe.backbone.load import chosen_device
from diffprobe.errors import UserError, one_line
from diffprobe.labels.hub import load_image_model
from diffprobe.labels.labeler import eight_bit, trial_picture
from diffprobe.ranges import Number, Text


class TransformersClassifier:
    """Probabilities of the classes of the model's configuration.

    The image processor is the one on Pillow, whether or not torchvision is there, so that answers do not depend on it.

    Args:
        model: a folder written by `save_pretrained`, or a hub id such as 'microsoft/resnet-50'.
        device: as in `load_backbone`.
        batch_size: images at once.

    Raises:
        UserError: the model cannot be loaded or run, or its files do not hold exactly its weights.
    """

    def __init__(
        self,
        model: Annotated[str, Text()],
        device: Annotated[str, Text()] = "auto",
        batch_size: Annotated[int, Number(1, 100_000)] = 16,
    ) -> None:
        self.name = Path(model).name if Path(model).expanduser().is_dir() else model
        self.device, self.batch_size = chosen_device(device), batch_size
        self.processor, self.network, _ = load_image_model(
            model, "ImageClassification", "image classifier", "classifier.model", "microsoft/resnet-50"
        )
        labels = self.network.config.id2label
        self.classes = [str(labels[number]) for number in sorted(labels)]
        self.network.to(self.device).requires_grad_(False).eval()
        self._try(model)

    def check(self, image_size: int) -> None:
        """Any image will do: the processor brings it to the network's size."""

    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> probabilities [images, classes]."""
        return torch.cat([self._probabilities(batch) for batch in images.split(self.batch_size)])

    @torch.no_grad()
    def _probabilities(self, images: Tensor) -> Tensor:
        pictures = list(eight_bit(images).permute(0, 2, 3, 1).numpy())
        inputs = self.processor(images=pictures, return_tensors="pt").to(self.device)
        return self.network(**inputs).logits.float().softmax(-1).cpu()

    def _try(self, model: str) -> None:
        try:
            found = self._probabilities(trial_picture())
        except Exception as error:  # whatever an unusual model or processor makes several libraries raise
            raise UserError(f"the classifier {model!r} does not run here: {one_line(error)}") from error
        if found.shape != (1, len(self.classes)) or not found.isfinite().all():
            raise UserError(
                f"the classifier {model!r} does not give a finite number for each of its {len(self.classes)} classes"
            )

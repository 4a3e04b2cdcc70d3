"""Classifiers of torchvision, such as the papers' VGG-16. torchvision is an extra: nothing else here needs it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from diffprobe.backbone.load import chosen_device
from diffprobe.errors import UserError, one_line
from diffprobe.labels.labeler import eight_bit
from diffprobe.ranges import Number, Text


class TorchvisionClassifier:
    """A network with its published weights, seen through the transforms that belong to them.

    Args:
        model: its name, such as 'vgg16'.
        weights: which of its published weights, such as 'IMAGENET1K_V1'.

    Raises:
        UserError: torchvision is absent, knows no such model or weights, or cannot download them.
    """

    def __init__(
        self,
        model: Annotated[str, Text()] = "vgg16",
        weights: Annotated[str, Text()] = "IMAGENET1K_V1",
        device: Annotated[str, Text()] = "auto",
        batch_size: Annotated[int, Number(1, 100_000)] = 16,
    ) -> None:
        models = _torchvision_models(model)
        try:
            published = models.get_model_weights(model)[weights]
        except (KeyError, ValueError) as error:
            raise UserError(f"torchvision has no model {model!r} with weights {weights!r}") from error
        check_download(published)
        try:
            network = models.get_model(model, weights=published)
        except OSError as error:
            raise UserError(
                f"cannot download the weights {weights} of {model} ({error}); run this once where there is a network, "
                "or choose classifier=transformers with a local folder"
            ) from error
        except Exception as error:  # a file of other weights: strict loading and unpickling raise many kinds
            raise UserError(f"cannot load the weights {weights} of {model}: {one_line(error)}") from error
        self.name, self.batch_size, self.device = model, batch_size, chosen_device(device)
        self.network = network.to(self.device).requires_grad_(False).eval()
        self.transforms, self.classes = published.transforms(), list(published.meta["categories"])

    def check(self, image_size: int) -> None:
        """Any image will do: the transforms bring it to the network's size."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> probabilities [images, classes]."""
        batches = (self.transforms(batch).to(self.device) for batch in eight_bit(images).split(self.batch_size))
        return torch.cat([self.network(batch).float().softmax(-1).cpu() for batch in batches])


def check_download(published: Any) -> None:
    """Compares a file that torch.hub has kept with the checksum in its name; torch.hub does so at the download alone.

    Args:
        published: a member of torchvision's weights, with a `url` that ends in '-<first digits of SHA-256>.pth'.

    Raises:
        UserError: the file is not the one that was published. It is a pickle, and is not read then.
    """
    name = Path(str(getattr(published, "url", ""))).name
    file, wanted = Path(torch.hub.get_dir()) / "checkpoints" / name, re.search(r"-([0-9a-f]{8,})\.\w+$", name)
    if wanted is None or not file.is_file():
        return
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(wanted.group(1)):
        raise UserError(f"{file} is damaged: its checksum is not the one in its name; delete it, and run again")


def _torchvision_models(model: str) -> Any:
    try:
        from torchvision import models  # type: ignore[import-not-found]
    except (ImportError, RuntimeError) as error:  # RuntimeError: a build that does not fit this torch
        raise UserError(
            f"classifier={model} needs torchvision, which is not installed here or does not fit this torch ({error}); "
            "install the build that belongs to your torch (https://pytorch.org/get-started), or choose "
            "classifier=transformers"
        ) from error
    return models

"""Image classifiers: their interface, those of transformers and torchvision, and the class that a text names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor

from diffprobe.backbone.load import chosen_device
from diffprobe.errors import UserError, one_line
from diffprobe.labels.class_names import class_named, synonyms
from diffprobe.labels.labeler import eight_bit, load_image_model, processed, try_on_noise
from diffprobe.ranges import Number, Text

# The property and metrics of a classifier in tables of scores.
PROPERTY = "class"
CONFIDENCE, TOP_1, TOP_5, STABLE = "confidence", "top1", "top5", "stable"


class Classifier(Protocol):
    """Names what an image shows. It asks for packages and weights when it is made.

    Attributes:
        name: in tables.
        classes: synonyms are separated by commas, as in ImageNet ('tench, Tinca tinca').
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> Sequence[str]: ...

    def check(self, image_size: int) -> None:
        """Raises UserError if it cannot classify images of so many pixels a side."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> probabilities [images, classes], float32 on the CPU."""
        ...


def class_in_text(text: str, classes: Sequence[str], patterns: Mapping[str, str]) -> int | None:
    """The index of the class that a text names; None where that is not clear.

    The first of the `patterns` (regular expression -> class) that is found in the text decides. Without one, the text
    must name one class once, as whole words and in any of its synonyms. A name within a longer one does not count
    ('tiger' in 'tiger cat').
    """
    for pattern, name in patterns.items():
        if re.search(pattern, text, re.IGNORECASE):
            return class_named(name, classes)
    mentions = [
        (match.span(), index)
        for index, name in enumerate(classes)
        for synonym in synonyms(name)
        for match in re.finditer(rf"(?<!\w){re.escape(synonym)}(?!\w)", text.casefold())
    ]
    outer = {
        (span, index)
        for span, index in mentions
        if not any(span != other and other[0] <= span[0] and span[1] <= other[1] for other, _ in mentions)
    }
    return outer.pop()[1] if len(outer) == 1 else None


def checked_patterns(patterns: Mapping[str, str], classes: Sequence[str], classifier: str) -> dict[str, str]:
    """The patterns. Raises UserError if one is no regular expression, or names an unknown class."""
    for pattern, name in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"analysis.classes: {pattern!r} is no regular expression: {error}") from error
        if class_named(str(name), classes) is None:
            raise UserError(
                f"analysis.classes: {classifier} knows no class {name!r}; it knows {len(classes)}, such as "
                f"{'; '.join(classes[:3])}"
            )
    return {pattern: str(name) for pattern, name in patterns.items()}


class TransformersClassifier:
    """Any image classifier of transformers: ResNet, ConvNeXt, ViT and others.

    Args:
        model: a folder written by `save_pretrained`, or a hub id such as 'microsoft/resnet-50'.

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
        scores = try_on_noise(self, f"the classifier {model!r} does not run here")
        if scores.shape != (1, len(self.classes)) or not scores.isfinite().all():
            raise UserError(
                f"the classifier {model!r} does not give a finite number for each of its {len(self.classes)} classes"
            )

    def check(self, image_size: int) -> None:
        """Any image will do: the processor resizes it."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> probabilities [images, classes]."""
        batches = (processed(self.processor, batch).to(self.device) for batch in images.split(self.batch_size))
        return torch.cat([self.network(**batch).logits.float().softmax(-1).cpu() for batch in batches])


class TorchvisionClassifier:
    """A network of torchvision, such as the papers' VGG-16, with its published weights and their transforms.

    Args:
        model: its name, such as 'vgg16'.
        weights: name of its published weights, such as 'IMAGENET1K_V1'.

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
        try:
            from torchvision import models  # type: ignore[import-not-found]
        except (ImportError, RuntimeError) as error:  # RuntimeError: a build that does not fit this torch
            raise UserError(
                f"classifier={model} needs torchvision, which is not installed here or does not fit this torch "
                f"({error}); install the build that belongs to your torch (https://pytorch.org/get-started), or choose "
                "classifier=transformers"
            ) from error
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
        """Any image will do: the transforms resize it."""

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> probabilities [images, classes]."""
        batches = (self.transforms(batch).to(self.device) for batch in eight_bit(images).split(self.batch_size))
        return torch.cat([self.network(batch).float().softmax(-1).cpu() for batch in batches])


def check_download(published: Any) -> None:
    """Compares a downloaded file, a pickle, with the checksum in its name before it is read; UserError if it differs.

    published: a member of torchvision's weights, with a `url` that ends in '-<first digits of SHA-256>.pth'.
    """
    name = Path(str(getattr(published, "url", ""))).name
    file, wanted = Path(torch.hub.get_dir()) / "checkpoints" / name, re.search(r"-([0-9a-f]{8,})\.\w+$", name)
    if wanted is None or not file.is_file():
        return
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(wanted.group(1)):
        raise UserError(f"{file} is damaged: its checksum is not the one in its name; delete it, and run again")

"""What is shown of one image: how it and the probes' predictions come out of the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffprobe.errors import UserError


@dataclass(frozen=True)
class PredictionExample:
    """Everything one grid shows, of one image.

    Attributes:
        title: the prompt.
        steps: 0-based step of each row of `images` and of the predictions.
        images: [steps, H, W, 3] in [0, 1], decoded after each step.
        predictions: property -> [steps, h, w]; saliency as a probability, the others in the unit of their label.
        labels: property -> [H, W]; saliency in {0, 1}.
        final: [H, W, 3] in [0, 1], the finished image, which the labels were made from.
    """

    title: str
    steps: tuple[int, ...]
    images: np.ndarray
    predictions: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    final: np.ndarray

    def __post_init__(self) -> None:
        counts = {"images": len(self.images)} | {name: len(maps) for name, maps in self.predictions.items()}
        for name, count in counts.items():
            if count != len(self.steps):
                raise UserError(f"'{name}' of '{self.title}' has {count} steps, but {len(self.steps)} are named")

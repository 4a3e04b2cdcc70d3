"""What is shown of one image: how it and the probes' predictions come out of the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.probes.properties import property_named
from diffprobe.report.report import Example, Frames, Overlay
from diffprobe.report.style import COLOUR_MAPS


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

    @staticmethod
    def of_tensors(
        title: str,
        steps: Sequence[int],
        images: Tensor,
        final: Tensor,
        predictions: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
    ) -> PredictionExample:
        """The same from tensors; images are [steps, 3, H, W], `final` is [3, H, W]. Labels that are not predicted are
        left out."""
        return PredictionExample(
            title,
            tuple(steps),
            images.permute(0, 2, 3, 1).numpy(),
            {name: maps.numpy() for name, maps in predictions.items()},
            {name: labels[name].numpy() for name in predictions},
            final.permute(1, 2, 0).numpy(),
        )


def example_over_steps(example: PredictionExample) -> Example:
    """The decoded image, the finished one, and of each property the best layer's probe beside the label."""
    frames = {"decoded image": Frames(example.images), "finished image": Frames(example.final[None])}
    for name, predicted in example.predictions.items():
        frames[f"{name}: probe"] = map_frames(name, predicted, example.labels[name])
        frames[f"{name}: label"] = map_frames(name, example.labels[name][None], example.labels[name])
    overlays = {
        name: Overlay(predicted, example.labels[name])
        for name, predicted in example.predictions.items()
        if property_named(name).binary
    }
    return Example(example.title, example.steps, frames, overlays)


def map_frames(name: str, maps: np.ndarray, label: np.ndarray) -> Frames:
    """Maps of a property in the colours of the example figures, and in the range of their label."""
    low, high = (0.0, 1.0) if property_named(name).binary else np.percentile(label, [2, 98]).tolist()
    return Frames(maps, COLOUR_MAPS.get(name, "viridis"), low, high)

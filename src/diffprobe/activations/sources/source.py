"""What an extraction asks of a source: images by row, the steps each is taken through, and what determines both.

A source holds nothing large, so it is cheap to hand to every process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep, replay
from diffprobe.fitting import Geometry

Replayed = Iterator[tuple[int, float, dict[str, Tensor]]]


class Source(ABC):
    """Images, and how the denoiser is shown them.

    Attributes:
        walks: whether steps lead from latents to latents; if not, all look at the same clean image.
        draws: how many evaluations with different noise make one activation.
        names: the image ids, by row.
        captions: the prompts that go with them.
    """

    walks: ClassVar[bool] = False
    draws: int = 1
    names: list[str]
    captions: list[str]

    @abstractmethod
    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        """The scheduler's t of every step that images are taken through."""

    @abstractmethod
    def run(
        self, backbone: Backbone, rows: Sequence[int], layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        """Some images through all steps, in order, or through the wanted `steps` alone where they do not lead on."""

    @abstractmethod
    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        rows: Sequence[int],
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Replayed:
        """Shows another denoiser what ours saw: `noisy` [steps, rows, channels, h, w] of a run."""

    @abstractmethod
    def description(self, backbone: Backbone) -> dict[str, Any]:
        """What, beside model and images, determines the activations, as JSON values."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """Of every image its `id` and what makes it, as JSON values."""

    def evaluations(self, backbone: Backbone, steps: Sequence[int]) -> int:
        """How often the denoiser is evaluated for each image when `steps` are wanted."""
        return (len(self.timesteps(backbone)) if self.walks else len(steps)) * self.draws

    def pictures(self, backbone: Backbone, rows: Sequence[int]) -> Tensor | None:
        """The real images [rows, 3, H, W] in [0, 1]; None where the last step's latents are to be decoded."""
        return None

    def geometries(self) -> dict[str, Geometry]:
        """How images that were no squares became some, by name, for maps that are made of the originals."""
        return {}


class Walk(Source):
    """Images that are walked through the steps of a scheduler, from latents to latents."""

    walks = True

    @abstractmethod
    def scheduler(self, backbone: Backbone) -> Any:
        """The scheduler of the walk, at its start."""

    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        return {step: float(timestep) for step, timestep in enumerate(self.scheduler(backbone).timesteps)}

    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        rows: Sequence[int],
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Replayed:
        captions = [self.captions[row] for row in rows]
        return replay(backbone, denoiser, captions, noisy, steps, scheduler=self.scheduler(backbone), layers=layers)


def described(scheduler: Any) -> dict[str, Any]:
    """A scheduler's class and settings, as JSON values."""
    return {
        "class": type(scheduler).__name__,
        **{key: value for key, value in scheduler.config.items() if not key.startswith("_")},
    }

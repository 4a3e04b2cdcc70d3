"""What an extraction asks of a source: images by row, the steps each is taken through, and what determines both.

A source holds nothing large, so it is cheap to hand to every process.

Images that the model makes from prompts and seeds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from diffprobe.activations.module import ImageBatch
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import one_at_a_time
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler, generate, replay
from diffprobe.data.prompts import Prompt
from diffprobe.fitting import Geometry
from diffprobe.ranges import Number, OneOrMore, WordOr

STEP_WORDS = ("all", "first", "last", "first_third")
Steps = OneOrMore(Annotated[Any, WordOr(STEP_WORDS, Annotated[int, Number(0, 999)])])


@dataclass(frozen=True)
class StepSelection:
    """How long a trajectory is, and which of its steps are looked at, see `chosen_steps`."""

    sampling: Annotated[int, Number(1, 1000)]
    select: Annotated[Any, Steps]


class Source(ABC):
    """Images, and how the denoiser is shown them.

    Attributes:
        is_trajectory: whether steps lead from latents to latents; if not, all look at the same clean image.
        draws: how many evaluations with different noise make one activation.
        names: the image ids, by row.
        captions: the prompts that go with them.
    """

    is_trajectory: ClassVar[bool] = False
    draws: int = 1
    names: list[str]
    captions: list[str]

    @abstractmethod
    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        """The scheduler's t of every step that images are taken through."""

    def batch(self, rows: Sequence[int], size: int | None = None) -> ImageBatch:
        """Some images for the network: prompts and seeds, and where they are real and a size in pixels is given, the
        images themselves, [batch, 3, size, size]."""
        names, captions = ([every[row] for row in rows] for every in (self.names, self.captions))
        return ImageBatch(
            list(rows), names, captions, self.seeds(rows), None if size is None else self.read(rows, size)
        )

    @abstractmethod
    def seeds(self, rows: Sequence[int]) -> list[int]:
        """The seeds of some rows' noise."""

    def read(self, rows: Sequence[int], size: int) -> Tensor | None:
        """Real images [rows, 3, size, size] in [0, 1]; None where the network makes them."""
        return None

    @abstractmethod
    def run(
        self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        """A batch through all steps, in order, or through the wanted `steps` alone where they do not lead on."""

    @abstractmethod
    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        batch: ImageBatch,
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Iterator[TrajectoryStep]:
        """Shows another denoiser what ours saw: `noisy` [steps, batch, channels, h, w] of a run."""

    @abstractmethod
    def description(self, backbone: Backbone) -> dict[str, Any]:
        """What, beside model and images, determines the activations, as JSON values."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """Of every image its `id` and what makes it, as JSON values."""

    def steps_taken(self, backbone: Backbone, steps: Sequence[int]) -> int:
        """How many steps an image is taken through when `steps` are wanted."""
        return len(self.timesteps(backbone)) if self.is_trajectory else len(steps)

    def evaluations(self, backbone: Backbone, steps: Sequence[int]) -> int:
        """How often the denoiser is evaluated for each image when `steps` are wanted."""
        return self.steps_taken(backbone, steps) * self.draws

    @torch.no_grad()
    def images(self, backbone: Backbone, batch: ImageBatch, latents: Tensor) -> Tensor:
        """The images [batch, 3, H, W] in [0, 1] of a batch whose latents after the last step are `latents`.

        Decoded one at a time, so that the batch makes no difference. Raises NotFinite as `decode_latents`.
        """
        return torch.cat(one_at_a_time(partial(decode_latents, backbone), latents))

    def geometries(self) -> dict[str, Geometry]:
        """How images that were no squares became some, by name, for maps that are made of the originals."""
        return {}


class TrajectorySource(Source):
    """Images that are walked through the steps of a scheduler, from latents to latents."""

    is_trajectory = True

    @abstractmethod
    def scheduler(self, backbone: Backbone) -> Any:
        """The scheduler of the walk, at its start."""

    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        return {step: float(timestep) for step, timestep in enumerate(self.scheduler(backbone).timesteps)}

    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        batch: ImageBatch,
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Iterator[TrajectoryStep]:
        return replay(
            backbone, denoiser, batch.prompts, noisy, steps, scheduler=self.scheduler(backbone), layers=layers
        )


def described(scheduler: Any) -> dict[str, Any]:
    """A scheduler's class and settings, as JSON values."""
    return {
        "class": type(scheduler).__name__,
        **{key: value for key, value in scheduler.config.items() if not key.startswith("_")},
    }


class Generation(TrajectorySource):
    """One image a prompt; `half` of the guidance batch is taken."""

    def __init__(self, prompts: Sequence[Prompt], sampling_steps: int = 15, half: str = "conditional") -> None:
        self.prompts, self.sampling_steps, self.half = list(prompts), sampling_steps, half
        self.names = [prompt.name for prompt in prompts]
        self.captions = [prompt.text for prompt in prompts]

    def scheduler(self, backbone: Backbone) -> Any:
        return fresh_scheduler(backbone, self.sampling_steps)

    def seeds(self, rows: Sequence[int]) -> list[int]:
        return [self.prompts[row].seed for row in rows]

    def run(
        self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return generate(backbone, batch.prompts, batch.seeds, steps=self.sampling_steps, layers=layers, half=self.half)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            "kind": "generation",
            "half": self.half,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guided),
            "scheduler": described(self.scheduler(backbone)),
        }

    def records(self) -> list[dict[str, Any]]:
        return [{"id": prompt.name, "prompt": prompt.text, "seed": prompt.seed} for prompt in self.prompts]

"""Where activations come from: images generated from prompts, or real images noised, inverted or denoised again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from diffprobe.activations.module import ImageBatch
from diffprobe.backbone.capture import decode_latents, encode_images
from diffprobe.backbone.finite import in_parts
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.real_images import (
    NOISES,
    check_noise,
    ddim_scheduler,
    evaluate_noised,
    image_to_image,
    invert,
    seed_of,
    steps_taken,
)
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler, generate, replay
from diffprobe.data.images import ImageCollection
from diffprobe.data.prompts import Prompt
from diffprobe.fitting import Geometry
from diffprobe.ranges import Choice, Items, Number, OneOrMore, Share, WordOr

STEP_WORDS = ("all", "first", "last", "first_third")
Steps = OneOrMore(Annotated[Any, WordOr(STEP_WORDS, Annotated[int, Number(0, 999)])])
Trajectory = Iterator[TrajectoryStep]


@dataclass(frozen=True)
class StepSelection:
    """How many steps a trajectory has, and which of them are probed, see `chosen_steps`."""

    sampling: Annotated[int, Number(1, 1000)]
    select: Annotated[Any, Steps]


class Source(ABC):
    """Images, and the steps that each is taken through. Holds nothing large, so that every process can have it.

    Attributes:
        is_trajectory: whether a step begins with the latents of the step before; if not, all see the same clean image.
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
        """The scheduler's timestep of every step of an image."""

    def batch(self, rows: Sequence[int], size: int | None = None) -> ImageBatch:
        """The batch of some rows; with a size in pixels real images are read too, [batch, 3, size, size]."""
        names, captions = ([every[row] for row in rows] for every in (self.names, self.captions))
        images = None if size is None else self.read(rows, size)
        return ImageBatch(list(rows), names, captions, self.seeds(rows), images)

    @abstractmethod
    def seeds(self, rows: Sequence[int]) -> list[int]:
        """The seeds of the noise of some rows."""

    def read(self, rows: Sequence[int], size: int) -> Tensor | None:
        """Real images [rows, 3, size, size] in [0, 1]; None where the network makes them."""
        return None

    @abstractmethod
    def run(self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]) -> Trajectory:
        """Takes a batch through all steps of a trajectory; otherwise through the wanted `steps` alone."""

    @abstractmethod
    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        batch: ImageBatch,
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Trajectory:
        """Evaluates another denoiser on the noisy latents of a run, [steps, batch, channels, h, w]."""

    @abstractmethod
    def description(self, backbone: Backbone) -> dict[str, Any]:
        """What determines the activations beside model and images, as JSON values."""

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
        """The final images [batch, 3, H, W] in [0, 1], from the latents after the last step.

        Decoded one at a time, so that the batch makes no difference. Raises NotFinite as `decode_latents`.
        """
        return torch.cat(in_parts(partial(decode_latents, backbone), latents))

    def geometries(self) -> dict[str, Geometry]:
        """How original images became squares, by name, for maps made of the originals."""
        return {}


class TrajectorySource(Source):
    """Images that the steps of a scheduler take from latents to latents."""

    is_trajectory = True

    @abstractmethod
    def scheduler(self, backbone: Backbone) -> Any:
        """A scheduler at the start of the trajectory."""

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
    ) -> Trajectory:
        scheduler = self.scheduler(backbone)
        return replay(backbone, denoiser, batch.prompts, noisy, steps, scheduler=scheduler, layers=layers)


def scheduler_settings(scheduler: Any) -> dict[str, Any]:
    """A scheduler's class and settings, as JSON values."""
    settings = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    return {"class": type(scheduler).__name__, **settings}


class Generation(TrajectorySource):
    """One generated image a prompt; `half` of the guidance batch is taken."""

    def __init__(self, prompts: Sequence[Prompt], sampling_steps: int = 15, half: str = "conditional") -> None:
        self.prompts, self.sampling_steps, self.half = list(prompts), sampling_steps, half
        self.names = [prompt.name for prompt in prompts]
        self.captions = [prompt.text for prompt in prompts]

    def scheduler(self, backbone: Backbone) -> Any:
        return fresh_scheduler(backbone, self.sampling_steps)

    def seeds(self, rows: Sequence[int]) -> list[int]:
        return [self.prompts[row].seed for row in rows]

    def run(self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]) -> Trajectory:
        return generate(backbone, batch.prompts, batch.seeds, steps=self.sampling_steps, layers=layers, half=self.half)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            "kind": "generation",
            "half": self.half,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guided),
            "scheduler": scheduler_settings(self.scheduler(backbone)),
        }

    def records(self) -> list[dict[str, Any]]:
        return [{"id": prompt.name, "prompt": prompt.text, "seed": prompt.seed} for prompt in self.prompts]


@dataclass(frozen=True)
class PartialDenoising:
    """Real images are noised and taken through the last steps of sampling before the network sees them.

    This noise too follows from an image's name, but differs from the noise that the image gets afterwards.
    """

    strength: float
    sampling_steps: int

    def __post_init__(self) -> None:
        steps_taken(self.sampling_steps, self.strength)  # raises UserError for an impossible strength

    @property
    def evaluations(self) -> int:
        """Of the denoiser, for each image."""
        return len(steps_taken(self.sampling_steps, self.strength))

    def latents(self, backbone: Backbone, clean: Tensor, names: Sequence[str], captions: Sequence[str]) -> Tensor:
        """The denoised latents of clean ones, [batch, channels, h, w] each."""
        seeds = [seed_of(f"{name}, denoised again") for name in names]
        steps = image_to_image(backbone, clean, seeds, captions, strength=self.strength, steps=self.sampling_steps)
        return list(steps)[-1].latents

    def description(self, backbone: Backbone, captions: Sequence[str]) -> dict[str, Any]:
        """What determines these latents beside model and images, as JSON values."""
        return {
            "strength": self.strength,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guidance_matters(captions)),
            "scheduler": scheduler_settings(fresh_scheduler(backbone, self.sampling_steps)),
        }


class RealImages(Source):
    """What all sources of real images share. The noise of an image follows from its name."""

    def __init__(self, images: ImageCollection, partial_denoising: PartialDenoising | None = None) -> None:
        self.collection, self.names, self.captions = images, images.names, images.captions
        self.partial_denoising = partial_denoising

    def read(self, rows: Sequence[int], size: int) -> Tensor:
        return torch.stack([self.collection.picture(row, size) for row in rows])

    def images(self, backbone: Backbone, batch: ImageBatch, latents: Tensor) -> Tensor:
        if self.partial_denoising:
            return super().images(backbone, batch, self.latents(backbone, batch))
        assert batch.images is not None
        return batch.images

    @torch.no_grad()
    def latents(self, backbone: Backbone, batch: ImageBatch) -> Tensor:
        """Clean latents [batch, channels, h, w], one image at a time: a VAE takes more memory than a denoiser."""
        assert batch.images is not None
        clean = torch.cat(in_parts(partial(encode_images, backbone), batch.images))
        if self.partial_denoising is None:
            return clean
        return self.partial_denoising.latents(backbone, clean, batch.names, batch.prompts)

    def evaluations(self, backbone: Backbone, steps: Sequence[int]) -> int:
        before = self.partial_denoising.evaluations if self.partial_denoising else 0
        return super().evaluations(backbone, steps) + before

    def description(self, backbone: Backbone) -> dict[str, Any]:
        """Subclasses add their own."""
        before = self.partial_denoising
        return {"denoised_again": before.description(backbone, self.captions) if before else None}

    def seeds(self, rows: Sequence[int]) -> list[int]:
        return [seed_of(self.names[row]) for row in rows]

    def records(self) -> list[dict[str, Any]]:
        return [self.collection.record(row) for row in range(len(self.names))]

    def geometries(self) -> dict[str, Geometry]:
        found = {name: self.collection.geometry(row) for row, name in enumerate(self.names)}
        return {name: geometry for name, geometry in found.items() if geometry is not None}


class Noised(RealImages):
    """One evaluation at each of some timesteps, averaged over draws; `noise='off'`, at timestep 0 only, adds none."""

    def __init__(
        self,
        images: ImageCollection,
        timesteps: Annotated[Sequence[Annotated[float, Number(0, 1000)]], Items(1)] = (0,),
        noise: Annotated[str, Choice(*NOISES)] = "seeded",
        draws: Annotated[int, Number(1, 1000)] = 1,
        partial_denoising: PartialDenoising | None = None,
    ) -> None:
        super().__init__(images, partial_denoising)
        self.noise_timesteps, self.noise, self.draws = list(timesteps), noise, draws

    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        """Raises UserError if the pipeline's own scheduler has no noise of timesteps."""
        check_noise(backbone)
        return {step: float(timestep) for step, timestep in enumerate(self.noise_timesteps)}

    def run(self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]) -> Trajectory:
        return self._evaluate(backbone, backbone.denoiser, batch, layers, steps)

    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        batch: ImageBatch,
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Trajectory:
        return self._evaluate(backbone, denoiser, batch, layers, steps)  # `noisy` is one draw of maybe several

    def _evaluate(
        self, backbone: Backbone, denoiser: nn.Module, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Trajectory:
        def renumbered(step: TrajectoryStep) -> TrajectoryStep:
            return replace(step, index=steps[step.index])

        found = evaluate_noised(
            backbone,
            self.latents(backbone, batch),
            batch.seeds,
            [self.noise_timesteps[step] for step in steps],
            layers,
            prompts=batch.prompts,
            noise=self.noise,
            draws=self.draws,
            denoiser=denoiser,
        )
        return map(renumbered, found)  # no generator, which would keep a step while the next is made

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            **super().description(backbone),
            "kind": "noised",
            "noise": self.noise,
            "draws": self.draws,
            "guidance": backbone.guidance_for(guided=False),
            "scheduler": scheduler_settings(backbone.pipeline.scheduler),  # it determines how latents are noised
        }


class Inversion(RealImages, TrajectorySource):
    """DDIM inversion from the clean image up to noise; step 0 is the clean end."""

    def __init__(
        self, images: ImageCollection, sampling_steps: int = 15, partial_denoising: PartialDenoising | None = None
    ) -> None:
        super().__init__(images, partial_denoising)
        self.sampling_steps = sampling_steps

    def scheduler(self, backbone: Backbone) -> Any:
        return ddim_scheduler(backbone, self.sampling_steps, inverse=True)

    def run(self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]) -> Trajectory:
        return invert(backbone, self.latents(backbone, batch), batch.prompts, steps=self.sampling_steps, layers=layers)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            **super().description(backbone),
            "kind": "inversion",
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(guided=False),
            "scheduler": scheduler_settings(self.scheduler(backbone)),
        }


class ImageToImage(RealImages, TrajectorySource):
    """Real images, noised and taken through the last steps of sampling; the final image is the result."""

    def __init__(
        self,
        images: ImageCollection,
        strength: Share = 0.5,
        sampling_steps: int = 15,
        half: str = "conditional",
        partial_denoising: PartialDenoising | None = None,
    ) -> None:
        super().__init__(images, partial_denoising)
        self.strength, self.sampling_steps, self.half = strength, sampling_steps, half

    def scheduler(self, backbone: Backbone) -> Any:
        return fresh_scheduler(backbone, self.sampling_steps)

    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        every = super().timesteps(backbone)
        return {step: every[step] for step in steps_taken(self.sampling_steps, self.strength)}

    def run(self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]) -> Trajectory:
        return image_to_image(
            backbone,
            self.latents(backbone, batch),
            batch.seeds,
            batch.prompts,
            strength=self.strength,
            steps=self.sampling_steps,
            layers=layers,
            half=self.half,
        )

    def images(self, backbone: Backbone, batch: ImageBatch, latents: Tensor) -> Tensor:
        return Source.images(self, backbone, batch, latents)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            **super().description(backbone),
            "kind": "image_to_image",
            "half": self.half,
            "strength": self.strength,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guidance_matters(self.captions) or self.half != "conditional"),
            "scheduler": scheduler_settings(self.scheduler(backbone)),
        }

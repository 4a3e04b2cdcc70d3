"""Real images: noised at timesteps, inverted, or noised a little and denoised again. Noise follows from their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from diffprobe.activations.module import ImageBatch
from diffprobe.activations.sources import Source, TrajectorySource, described
from diffprobe.backbone.capture import encode_images
from diffprobe.backbone.finite import one_at_a_time
from diffprobe.backbone.inversion import ddim_scheduler, image_to_image, invert, steps_taken
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.noising import NOISES, check_noise, evaluate_noised, seed_of
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler
from diffprobe.data.images import ImageCollection
from diffprobe.fitting import Geometry
from diffprobe.ranges import Choice, Items, Number, Share


@dataclass(frozen=True)
class PartialDenoising:
    """What becomes of real images before they are shown: noised, and taken through the last steps of sampling.

    The noise follows from an image's name, and is not the one with which it is shown afterwards.
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
        """The latents that come out of clean ones, [batch, channels, h, w] each."""
        seeds = [seed_of(f"{name}, denoised again") for name in names]
        walked = image_to_image(backbone, clean, seeds, captions, strength=self.strength, steps=self.sampling_steps)
        return list(walked)[-1].latents

    def description(self, backbone: Backbone, captions: Sequence[str]) -> dict[str, Any]:
        """What, beside model and images, determines these latents, as JSON values."""
        return {
            "strength": self.strength,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guidance_matters(captions)),
            "scheduler": described(fresh_scheduler(backbone, self.sampling_steps)),
        }


class RealImages(Source):
    """What all sources of real images share.

    Args:
        partial_denoising: what becomes of the images before they are shown; None shows them as they are.
    """

    def __init__(self, images: ImageCollection, partial_denoising: PartialDenoising | None = None) -> None:
        self.pictures, self.names, self.captions = images, images.names, images.captions
        self.partial_denoising = partial_denoising

    def read(self, rows: Sequence[int], size: int) -> Tensor:
        return torch.stack([self.pictures.picture(row, size) for row in rows])

    def images(self, backbone: Backbone, batch: ImageBatch, latents: Tensor) -> Tensor:
        if self.partial_denoising:
            return super().images(backbone, batch, self.latents(backbone, batch))
        assert batch.images is not None
        return batch.images

    @torch.no_grad()
    def latents(self, backbone: Backbone, batch: ImageBatch) -> Tensor:
        """Clean latents [batch, channels, h, w], one image at a time: a VAE takes more memory than a denoiser."""
        assert batch.images is not None
        clean = torch.cat(one_at_a_time(partial(encode_images, backbone), batch.images))
        return (
            clean
            if self.partial_denoising is None
            else self.partial_denoising.latents(backbone, clean, batch.names, batch.prompts)
        )

    def evaluations(self, backbone: Backbone, steps: Sequence[int]) -> int:
        return super().evaluations(backbone, steps) + (
            self.partial_denoising.evaluations if self.partial_denoising else 0
        )

    def description(self, backbone: Backbone) -> dict[str, Any]:
        """Of the kinds of sources to add to."""
        return {
            "denoised_again": self.partial_denoising.description(backbone, self.captions)
            if self.partial_denoising
            else None
        }

    def seeds(self, rows: Sequence[int]) -> list[int]:
        return [seed_of(self.names[row]) for row in rows]

    def records(self) -> list[dict[str, Any]]:
        return [self.pictures.record(row) for row in range(len(self.names))]

    def geometries(self) -> dict[str, Geometry]:
        found = {name: self.pictures.geometry(row) for row, name in enumerate(self.names)}
        return {name: geometry for name, geometry in found.items() if geometry is not None}


class Noised(RealImages):
    """One evaluation at each of some timesteps (`noise='off'`, at timestep 0 only: none), averaged over draws."""

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

    def run(
        self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return self._evaluate(backbone, backbone.denoiser, batch, layers, steps)

    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        batch: ImageBatch,
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Iterator[TrajectoryStep]:
        # Noised again, since `noisy` is one draw of maybe several.
        return self._evaluate(backbone, denoiser, batch, layers, steps)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        # The scheduler says how latents are noised.
        return {
            **super().description(backbone),
            "kind": "noised",
            "noise": self.noise,
            "draws": self.draws,
            "guidance": backbone.guidance_for(guided=False),
            "scheduler": described(backbone.pipeline.scheduler),
        }

    def _evaluate(
        self, backbone: Backbone, denoiser: nn.Module, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
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
        return map(partial(_numbered, steps), found)  # no generator, which would keep a step while the next is made


def _numbered(steps: Sequence[int], step: TrajectoryStep) -> TrajectoryStep:
    """The step of a place among `steps` with its own number."""
    return replace(step, index=steps[step.index])


class Inversion(RealImages, TrajectorySource):
    """Walked up to noise by DDIM inversion; step 0 is the clean end."""

    def __init__(
        self, images: ImageCollection, sampling_steps: int = 15, partial_denoising: PartialDenoising | None = None
    ) -> None:
        super().__init__(images, partial_denoising)
        self.sampling_steps = sampling_steps

    def scheduler(self, backbone: Backbone) -> Any:
        return ddim_scheduler(backbone, self.sampling_steps, inverse=True)

    def run(
        self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return invert(backbone, self.latents(backbone, batch), batch.prompts, steps=self.sampling_steps, layers=layers)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            **super().description(backbone),
            "kind": "inversion",
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(guided=False),
            "scheduler": described(self.scheduler(backbone)),
        }


class ImageToImage(RealImages, TrajectorySource):
    """Given some noise, then taken through the last steps of sampling; the picture is what comes out."""

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

    def run(
        self, backbone: Backbone, batch: ImageBatch, layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
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
            "scheduler": described(self.scheduler(backbone)),
        }

"""Real images: noised at timesteps, inverted, or noised a little and denoised again. Noise follows from their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffprobe.activations.sources.source import Replayed, Source, Walk, described
from diffprobe.backbone.calls import decode_latents, encode_images
from diffprobe.backbone.finite import one_at_a_time
from diffprobe.backbone.image_to_image import image_to_image, steps_taken
from diffprobe.backbone.inversion import ddim_scheduler, invert
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.noising import check_noise, evaluate_noised, seed_of
from diffprobe.backbone.trajectory import TrajectoryStep, fresh_scheduler
from diffprobe.data.pictures import Pictures
from diffprobe.fitting import Geometry


@dataclass(frozen=True)
class DenoisedAgain:
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
            "guidance": backbone.guidance_for(backbone.guides(captions)),
            "scheduler": described(fresh_scheduler(backbone, self.sampling_steps)),
        }


class RealImages(Source):
    """What all sources of real images share.

    Args:
        again: what becomes of the images before they are shown; None shows them as they are.
    """

    def __init__(self, images: Pictures, again: DenoisedAgain | None = None) -> None:
        self.images, self.names, self.captions = images, images.names, images.captions
        self.again = again

    @torch.no_grad()
    def pictures(self, backbone: Backbone, rows: Sequence[int]) -> Tensor | None:
        if self.again:
            return torch.cat(one_at_a_time(partial(decode_latents, backbone), self.latents(backbone, rows)))
        return torch.stack([self.images.picture(row, backbone.image_size) for row in rows])

    @torch.no_grad()
    def latents(self, backbone: Backbone, rows: Sequence[int]) -> Tensor:
        """Clean latents [rows, channels, h, w], one image at a time: a VAE takes more memory than a denoiser."""
        images = (self.images.picture(row, backbone.image_size) for row in rows)
        clean = torch.cat(one_at_a_time(partial(encode_images, backbone), images))
        if self.again is None:
            return clean
        return self.again.latents(backbone, clean, [self.names[row] for row in rows], self.texts(rows))

    def evaluations(self, backbone: Backbone, steps: Sequence[int]) -> int:
        return super().evaluations(backbone, steps) + (self.again.evaluations if self.again else 0)

    def description(self, backbone: Backbone) -> dict[str, Any]:
        """Of the kinds of sources to add to."""
        return {"denoised_again": self.again.description(backbone, self.captions) if self.again else None}

    def texts(self, rows: Sequence[int]) -> list[str]:
        """The captions of some rows."""
        return [self.captions[row] for row in rows]

    def seeds(self, rows: Sequence[int]) -> list[int]:
        """The seeds of some rows' noise."""
        return [seed_of(self.names[row]) for row in rows]

    def records(self) -> list[dict[str, Any]]:
        return [self.images.record(row) for row in range(len(self.names))]

    def geometries(self) -> dict[str, Geometry]:
        found = {name: self.images.geometry(row) for row, name in enumerate(self.names)}
        return {name: geometry for name, geometry in found.items() if geometry is not None}


class Noised(RealImages):
    """One evaluation at each of some timesteps (`noise='off'`, at timestep 0 only: none), averaged over draws."""

    def __init__(
        self,
        images: Pictures,
        at: Sequence[float] = (0,),
        noise: str = "seeded",
        draws: int = 1,
        again: DenoisedAgain | None = None,
    ) -> None:
        super().__init__(images, again)
        self.at, self.noise, self.draws = list(at), noise, draws

    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        """Raises UserError if the pipeline's own scheduler has no noise of timesteps."""
        check_noise(backbone)
        return {step: float(timestep) for step, timestep in enumerate(self.at)}

    def run(
        self, backbone: Backbone, rows: Sequence[int], layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        for found in self._evaluate(backbone, backbone.denoiser, rows, layers, steps):
            yield replace(found, index=steps[found.index])

    def replay(
        self,
        backbone: Backbone,
        denoiser: nn.Module,
        rows: Sequence[int],
        layers: Sequence[str],
        noisy: Tensor,
        steps: Sequence[int],
    ) -> Replayed:
        # Noised again, since `noisy` is one draw of maybe several.
        for found in self._evaluate(backbone, denoiser, rows, layers, steps):
            yield steps[found.index], found.timestep, found.activations

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
        self, backbone: Backbone, denoiser: nn.Module, rows: Sequence[int], layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return evaluate_noised(
            backbone,
            self.latents(backbone, rows),
            self.seeds(rows),
            [self.at[step] for step in steps],
            layers,
            prompts=self.texts(rows),
            noise=self.noise,
            draws=self.draws,
            denoiser=denoiser,
        )


class Inversion(RealImages, Walk):
    """Walked up to noise by DDIM inversion; step 0 is the clean end."""

    def __init__(self, images: Pictures, sampling_steps: int = 15, again: DenoisedAgain | None = None) -> None:
        super().__init__(images, again)
        self.sampling_steps = sampling_steps

    def scheduler(self, backbone: Backbone) -> Any:
        return ddim_scheduler(backbone, self.sampling_steps, inverse=True)

    def run(
        self, backbone: Backbone, rows: Sequence[int], layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return invert(
            backbone, self.latents(backbone, rows), self.texts(rows), steps=self.sampling_steps, layers=layers
        )

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            **super().description(backbone),
            "kind": "inversion",
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(guided=False),
            "scheduler": described(self.scheduler(backbone)),
        }


class ImageToImage(RealImages, Walk):
    """Given some noise, then taken through the last steps of sampling; the picture is what comes out."""

    def __init__(
        self,
        images: Pictures,
        strength: float = 0.5,
        sampling_steps: int = 15,
        half: str = "conditional",
        again: DenoisedAgain | None = None,
    ) -> None:
        super().__init__(images, again)
        self.strength, self.sampling_steps, self.half = strength, sampling_steps, half

    def scheduler(self, backbone: Backbone) -> Any:
        return fresh_scheduler(backbone, self.sampling_steps)

    def timesteps(self, backbone: Backbone) -> dict[int, float]:
        every = super().timesteps(backbone)
        return {step: every[step] for step in steps_taken(self.sampling_steps, self.strength)}

    def run(
        self, backbone: Backbone, rows: Sequence[int], layers: Sequence[str], steps: Sequence[int]
    ) -> Iterator[TrajectoryStep]:
        return image_to_image(
            backbone,
            self.latents(backbone, rows),
            self.seeds(rows),
            self.texts(rows),
            strength=self.strength,
            steps=self.sampling_steps,
            layers=layers,
            half=self.half,
        )

    def pictures(self, backbone: Backbone, rows: Sequence[int]) -> Tensor | None:
        return None

    def description(self, backbone: Backbone) -> dict[str, Any]:
        return {
            **super().description(backbone),
            "kind": "image_to_image",
            "half": self.half,
            "strength": self.strength,
            "sampling_steps": self.sampling_steps,
            "guidance": backbone.guidance_for(backbone.guides(self.captions) or self.half != "conditional"),
            "scheduler": described(self.scheduler(backbone)),
        }

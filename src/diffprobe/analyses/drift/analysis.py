"""How far objects move inside the network: when their image is changed, denoised again, or goes on as a video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from diffprobe.analyses.separation.analysis import run
from diffprobe.ranges import Count, Items, Keys, Number, Share

__all__ = ["Denoising", "Transforms", "Video", "run"]

CHANGES = ("rotation", "flip", "scale", "padding", "crop", "shift")
Draws = Annotated[int, Number(19, 100_000)]


@dataclass(frozen=True)
class Transforms:
    """How far an object moves when its image is changed, beside how far apart other objects are.

    Attributes:
        changes: strengths of each change, see `diffprobe.data.image_changes`.
        resamples, permutations: see `Separation`.
    """

    changes: Annotated[Mapping[str, Annotated[list[float], Items()]], Keys(*CHANGES, called="change")]
    resamples: Draws = 1000
    permutations: Draws = 1000


@dataclass(frozen=True)
class Denoising:
    """How far an object moves when its image is noised and denoised again.

    Attributes:
        strengths: shares of the trajectory that are taken.
        strength: the one that is taken at other numbers of steps, which are `sampling_steps`.
        resamples, permutations: see `Separation`.
    """

    strengths: Annotated[list[Share], Items()]
    sampling_steps: Annotated[list[Annotated[int, Number(1, 1000)]], Items()]
    strength: Share = 0.2
    resamples: Draws = 1000
    permutations: Draws = 1000


@dataclass(frozen=True)
class Video:
    """How far an object of a video moves from frame to frame.

    Attributes:
        gaps: in frames.
    """

    gaps: Annotated[list[Count], Items()] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])

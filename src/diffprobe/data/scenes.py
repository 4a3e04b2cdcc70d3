"""Scenes of the pocket world as annotated images: rendered when asked for, with exact masks.

Videos of the pocket world: scenes past which the camera steps to the right, as annotated frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from diffprobe.data.objects import AnnotatedImages, Annotation, Instance, digest
from diffprobe.errors import UserError
from diffprobe.pocket.render import render
from diffprobe.pocket.scenes import Scene, sample_scene

STREAM = "test"  # no model was trained on these
SEED_STRIDE = 1_000_000
SMALL = 64  # pixels: of this size up to REMEMBERED scenes are kept in memory, 60 MB
CACHED_SCENES = 1024
LABELS = ("shape", "colour", "both")


class SceneObjects(AnnotatedImages):
    """Scenes of the stream 'test', named 'scene-<index>'; instances are numbered from left to right, from 1.

    Args:
        label: what makes an object's class: its 'shape', its 'colour', or 'both' ('red cube').
        size: of the masks in pixels; pictures are rendered at whatever size they are asked for.
    """

    kind = "scenes"

    def __init__(self, indices: Sequence[int], label: str = "shape", size: int = 64) -> None:
        if label not in LABELS:
            raise UserError(f"objects.label={label}: choose one of {', '.join(LABELS)}")
        if size < 1:
            raise UserError(f"objects.size={size}: must be at least 1")
        super().__init__([f"scene-{index:06d}" for index in indices])
        self.label, self.size = label, size

    def read(self, row: int) -> Annotation:
        scene = self.scene(row)
        masks = _rendered(self.scene_named, self.names[row], self.size)[1].numpy()
        labels = [
            {"shape": item.shape, "colour": item.colour, "both": f"{item.colour} {item.shape}"}[self.label]
            for item in scene.objects
        ]
        # An object that others hide is not annotated.
        return Annotation(
            [
                Instance(number, label, mask)
                for number, (label, mask) in enumerate(zip(labels, masks, strict=False), 1)
                if mask.any()
            ]
        )

    def check_picture(self, row: int, height: int, width: int) -> None:
        """A rendered picture cannot be broken."""

    def picture(self, row: int, size: int) -> Tensor:
        return _rendered(self.scene_named, self.names[row], size)[0]

    def record(self, row: int) -> dict[str, Any]:
        scene = repr(self.scene(row)).encode()
        return {"id": self.names[row], "caption": self.captions[row], "sha256": digest(scene), "size": self.size}

    def scene(self, row: int) -> Scene:
        """What is to be seen in an image."""
        return self.scene_named(self.names[row])

    @staticmethod
    def scene_named(name: str) -> Scene:
        """The scene of the image 'scene-<index>'."""
        return sample_scene(int(name.removeprefix("scene-")), STREAM)


def _rendered(scene_named: Callable[[str], Scene], name: str, size: int) -> tuple[Tensor, Tensor]:
    """Picture [3, size, size] and masks [3, size, size] of an image; small ones are remembered."""
    draw = _rendered_cached if size <= SMALL else _rendered_cached.__wrapped__
    return draw(scene_named, name, size)


@lru_cache(CACHED_SCENES)
def _rendered_cached(scene_named: Callable[[str], Scene], name: str, size: int) -> tuple[Tensor, Tensor]:
    rendered = render([scene_named(name)], size)
    return rendered.images[0], rendered.instances[0]


def scene_objects(count: int, seed: int = 0, label: str = "shape", size: int = 64) -> SceneObjects:
    """So many scenes; different seeds give different ones.

    Raises:
        UserError: `label` is unknown, or `size` is not positive.
    """
    return SceneObjects(range(seed * SEED_STRIDE, seed * SEED_STRIDE + count), label, size)


STRIDE = 0.06  # scene units from frame to frame; an object is about one unit wide
SCENES, FRAMES = 40, 16


class MovingScenes(SceneObjects):
    """Frames '<scene>/<frame>' of scenes of the stream 'test'. As in DAVIS, an object's class is its identity:
    '<scene>/<instance>'. Objects that have left the picture are not annotated."""

    kind = "moving_scenes"

    def __init__(self, scenes: Sequence[int], frames: Sequence[int], size: int = 64) -> None:
        super().__init__([scene for scene in scenes for _ in frames], size=size)
        self.sequences = list(self.names)
        self.frames = [frame for _ in scenes for frame in frames]
        self.names = [f"{name}/{frame:05d}" for name, frame in zip(self.sequences, self.frames, strict=True)]

    def read(self, row: int) -> Annotation:
        found = super().read(row).instances
        return Annotation([replace(item, label=f"{self.sequences[row]}/{item.number}") for item in found])

    @staticmethod
    def scene_named(name: str) -> Scene:
        """The scene of the frame 'scene-<index>/<frame>'."""
        sequence, frame = name.split("/")
        still = SceneObjects.scene_named(sequence)
        camera = np.array(still.camera) + STRIDE * int(frame) * still.axes[0]
        return replace(still, camera=(float(camera[0]), float(camera[1]), float(camera[2])))


def moving_scenes(
    count: int | None = None, seed: int = 0, *, every: int = 1, frames: int | None = None, size: int = 64
) -> MovingScenes:
    """So many videos (by default 40) of every `every`-th frame, at most `frames` (by default 16) of them."""
    start = seed * SEED_STRIDE
    return MovingScenes(
        range(start, start + (count or SCENES)), [every * number for number in range(frames or FRAMES)], size
    )

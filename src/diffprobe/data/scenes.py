"""Scenes of the pocket world as annotated images with exact masks, still or as videos; rendered when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from diffprobe.data.images import OnError
from diffprobe.data.object_selection import AreaShare, Selected, check_settings, select_objects
from diffprobe.data.objects import AnnotatedImages, Annotation, Instance, digest
from diffprobe.data.prompts import Log, warn
from diffprobe.errors import UserError
from diffprobe.pocket.render import render
from diffprobe.pocket.scenes import Scene, sample_scene
from diffprobe.ranges import Choice, Count, Number

STREAM = "test"  # no model was trained on these
SEED_STRIDE = 1_000_000
SMALL = 64  # pixels: scenes up to this size stay in memory, in all 60 MB
CACHED_SCENES = 1024
LABELS = ("shape", "colour", "both")
STRIDE = 0.06  # scene units from frame to frame; an object is about one unit wide
MaskSize = Annotated[int, Number(8, 2048)]


def load_scenes(
    count: Count = 200,
    label: Annotated[str, Choice(*LABELS)] = "shape",
    size: MaskSize = 64,
    *,
    min_area: AreaShare = 0.0,
    on_error: OnError = "error",
    seed: int = 0,
    log: Log = warn,
) -> Selected:
    """Scenes that no model was trained on; different seeds give different ones.

    Args:
        label, size: see `SceneObjects`.
        min_area, on_error, log: see `select_objects`, also for what is returned and raised.
    """
    check_settings(count=count)
    scenes = SceneObjects(range(seed * SEED_STRIDE, seed * SEED_STRIDE + count), label, size)
    return select_objects(scenes, min_area=min_area, on_error=on_error, seed=seed, log=log)


def load_moving_scenes(
    count: Count = 40,
    every: Count = 1,
    frames: Count = 16,
    size: MaskSize = 64,
    *,
    min_area: AreaShare = 0.0,
    on_error: OnError = "error",
    seed: int = 0,
    log: Log = warn,
) -> Selected:
    """Videos of scenes past which the camera steps to the right.

    Args:
        count: of videos.
        every, frames: takes each `every`-th frame, and `frames` of them in all.
        size, min_area, on_error, seed, log: as of `load_scenes`.
    """
    check_settings(count=count, every=every, frames=frames)
    start = seed * SEED_STRIDE
    scenes = MovingScenes(range(start, start + count), [every * number for number in range(frames)], size)
    return select_objects(scenes, min_area=min_area, on_error=on_error, seed=seed, log=log)


class SceneObjects(AnnotatedImages):
    """Scenes of the stream 'test', named 'scene-<index>'; instances are numbered from left to right, from 1.

    Args:
        label: the class of an object: its 'shape', its 'colour', or 'both' ('red cube').
        size: of the masks in pixels; pictures are rendered at any size.
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
        masks = _rendered(self.scene_named, self.names[row], self.size)[1].numpy()
        labels = [
            {"shape": item.shape, "colour": item.colour, "both": f"{item.colour} {item.shape}"}[self.label]
            for item in self.scene(row).objects
        ]
        numbered = enumerate(zip(labels, masks, strict=False), 1)
        return Annotation([Instance(number, label, mask) for number, (label, mask) in numbered if mask.any()])

    def picture(self, row: int, size: int) -> Tensor:
        return _rendered(self.scene_named, self.names[row], size)[0]

    def record(self, row: int) -> dict[str, Any]:
        scene = repr(self.scene(row)).encode()
        return {"id": self.names[row], "caption": self.captions[row], "sha256": digest(scene), "size": self.size}

    def scene(self, row: int) -> Scene:
        """The scene of an image."""
        return self.scene_named(self.names[row])

    @staticmethod
    def scene_named(name: str) -> Scene:
        """The scene of the image 'scene-<index>'."""
        return sample_scene(int(name.removeprefix("scene-")), STREAM)


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
        x, y, z = (float(at) for at in np.array(still.camera) + STRIDE * int(frame) * still.axes[0])
        return replace(still, camera=(x, y, z))


def _rendered(scene_named: Callable[[str], Scene], name: str, size: int) -> tuple[Tensor, Tensor]:
    """Picture [3, size, size] and masks [3, size, size] of an image; small ones are cached."""
    draw = _rendered_cached if size <= SMALL else _rendered_cached.__wrapped__
    return draw(scene_named, name, size)


@lru_cache(CACHED_SCENES)
def _rendered_cached(scene_named: Callable[[str], Scene], name: str, size: int) -> tuple[Tensor, Tensor]:
    rendered = render([scene_named(name)], size)
    return rendered.images[0], rendered.instances[0]

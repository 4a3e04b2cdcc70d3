"""Videos of the pocket world: scenes past which the camera steps to the right, as annotated frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffprobe.data.annotated_images import Reading
from diffprobe.data.scene_objects import SEED_STRIDE, SceneObjects
from diffprobe.pocket.scenes import Scene

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

    def read(self, row: int) -> Reading:
        found = super().read(row).instances
        return Reading([replace(item, label=f"{self.sequences[row]}/{item.number}") for item in found])

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

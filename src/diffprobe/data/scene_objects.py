"""Scenes of the pocket world as annotated images: rendered when asked for, with exact masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from diffprobe.data.annotated_images import AnnotatedImages, Instance, Reading, digest
from diffprobe.errors import UserError
from diffprobe.pocket.render import render
from diffprobe.pocket.scenes import Scene, sample_scene

STREAM = "test"  # no model was trained on these
SEED_STRIDE = 1_000_000
SMALL = 64  # pixels: of this size up to REMEMBERED scenes are kept in memory, 60 MB
REMEMBERED = 1024
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

    def read(self, row: int) -> Reading:
        scene = self.scene(row)
        masks = _drawn(self.scene_named, self.names[row], self.size)[1].numpy()
        labels = [
            {"shape": item.shape, "colour": item.colour, "both": f"{item.colour} {item.shape}"}[self.label]
            for item in scene.objects
        ]
        # An object that others hide is not annotated.
        return Reading(
            [
                Instance(number, label, mask)
                for number, (label, mask) in enumerate(zip(labels, masks, strict=False), 1)
                if mask.any()
            ]
        )

    def check_picture(self, row: int, height: int, width: int) -> None:
        """A rendered picture cannot be broken."""

    def picture(self, row: int, size: int) -> Tensor:
        return _drawn(self.scene_named, self.names[row], size)[0]

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


def _drawn(scene_named: Callable[[str], Scene], name: str, size: int) -> tuple[Tensor, Tensor]:
    """Picture [3, size, size] and masks [3, size, size] of an image; small ones are remembered."""
    draw = _remembered if size <= SMALL else _remembered.__wrapped__
    return draw(scene_named, name, size)


@lru_cache(REMEMBERED)
def _remembered(scene_named: Callable[[str], Scene], name: str, size: int) -> tuple[Tensor, Tensor]:
    rendered = render([scene_named(name)], size)
    return rendered.images[0], rendered.instances[0]


def scene_objects(count: int, seed: int = 0, label: str = "shape", size: int = 64) -> SceneObjects:
    """So many scenes; different seeds give different ones.

    Raises:
        UserError: `label` is unknown, or `size` is not positive.
    """
    return SceneObjects(range(seed * SEED_STRIDE, seed * SEED_STRIDE + count), label, size)

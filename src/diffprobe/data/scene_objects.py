"""Scenes of the pocket world as annotated images: rendered when asked for, with exact masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffprobe.data.annotated_images import AnnotatedImages, Instance, Reading, digest
from diffprobe.errors import UserError
from diffprobe.pocket.render import render
from diffprobe.pocket.scenes import Scene, sample_scene

STREAM = "test"  # no model was trained on these
SEED_STRIDE = 1_000_000
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
        scene = self._scene(row)
        masks = render([scene], self.size).instances[0].numpy()
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
        return render([self._scene(row)], size).images[0]

    def record(self, row: int) -> dict[str, Any]:
        scene = repr(self._scene(row)).encode()
        return {"id": self.names[row], "caption": self.captions[row], "sha256": digest(scene), "size": self.size}

    def _scene(self, row: int) -> Scene:
        return sample_scene(int(self.names[row].removeprefix("scene-")), STREAM)


def scene_objects(count: int, seed: int = 0, label: str = "shape", size: int = 64) -> SceneObjects:
    """So many scenes; different seeds give different ones.

    Raises:
        UserError: `label` is unknown, or `size` is not positive.
    """
    return SceneObjects(range(seed * SEED_STRIDE, seed * SEED_STRIDE + count), label, size)

"""Videos of the pocket world: the same objects, frame by frame, while the camera moves."""

from __future__ import annotations

import torch

from diffprobe.data.scenes import MovingScenes
from tests.data.layouts import load_objects


def test_frames_come_in_order_and_objects_keep_their_identity() -> None:
    images, _ = load_objects("moving_scenes", count=2, frames=3, every=4)
    assert images.names[:3] == ["scene-000000/00000", "scene-000000/00004", "scene-000000/00008"]
    assert images.sequences[:3] == ["scene-000000"] * 3
    assert images.frames[:3] == [0, 4, 8]
    labels = {item.label for row in range(len(images)) for item in images.objects(row)}
    assert labels <= {f"scene-00000{scene}/{number}" for scene in (0, 1) for number in (1, 2, 3)}


def test_objects_move_to_the_left_while_the_camera_moves_to_the_right() -> None:
    images, _ = load_objects("moving_scenes", count=1, frames=2, every=6)
    first, second = (images.masks(row)[0].float().mean(0) for row in (0, 1))
    columns = torch.arange(64.0)
    assert (second * columns).sum() / second.sum() < (first * columns).sum() / first.sum() - 1


def test_the_first_frame_is_the_scene_that_stands_still() -> None:
    still, _ = load_objects("scenes", count=1)
    assert torch.equal(MovingScenes([0], [0]).picture(0, 64), still.picture(0, 64))


def test_an_object_that_has_left_the_picture_is_not_annotated() -> None:
    images, problems = load_objects("moving_scenes", count=1, frames=3, every=200)
    assert images.frames == [0]
    assert [problem.reason for problem in problems] == ["it has no object", "it has no object"]

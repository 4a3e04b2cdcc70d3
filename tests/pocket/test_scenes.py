"""The scene grammar: seeded, within the picture, told from left to right."""

import numpy as np
import pytest

from diffprobe.pocket.scenes import COLOURS, SHAPES, describe, sample_scene


def project(scene, item) -> tuple[float, float]:
    """Picture coordinates of an object's centre, both in [-1, 1] inside the picture."""
    right, up, forward = scene.axes @ (np.array(item.position) - np.array(scene.camera))
    return right / forward / scene.half_width, up / forward / scene.half_width


def test_a_scene_depends_on_its_stream_and_index_alone():
    first, again = sample_scene(7), sample_scene(7)
    assert first.objects == again.objects
    assert first.light == again.light
    assert np.array_equal(first.axes, again.axes)
    assert sample_scene(7, "test").objects != first.objects
    assert sample_scene(8).objects != first.objects


def test_objects_stand_in_the_picture_from_left_to_right():
    for index in range(200):
        scene = sample_scene(index)
        places = [project(scene, item) for item in scene.objects]
        assert [u for u, _ in places] == sorted(u for u, _ in places)
        assert all(abs(u) < 1 and abs(v) < 1 for u, v in places)


def test_objects_rest_on_the_ground_in_front_of_the_wall():
    for index in range(200):
        scene = sample_scene(index)
        for item in scene.objects:
            assert item.position[2] == pytest.approx(item.extent[2])
            distance = np.dot(scene.wall_normal, item.position[:2]) - scene.wall_offset
            assert distance >= max(item.extent[:2])


def test_every_shape_colour_and_number_of_objects_occurs():
    scenes = [sample_scene(index) for index in range(300)]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {item.shape for scene in scenes for item in scene.objects} == set(SHAPES)
    assert {item.colour for scene in scenes for item in scene.objects} == set(COLOURS)


def test_captions_name_the_objects_where_they_stand():
    two = sample_scene(0, objects=2).objects
    left, right = (f"a {item.colour} {item.shape}" for item in two)
    assert describe(two[:1]) == left
    assert describe(two, 0) == f"{left} to the left of {right}"
    assert describe(two, 1) == f"{right} to the right of {left}"
    three = sample_scene(0, objects=3).objects
    assert describe(three).endswith("from left to right")
    assert describe(three).index(three[0].colour) < describe(three).rindex(three[2].shape)


def test_the_number_of_objects_can_be_asked_for():
    assert [len(sample_scene(3, objects=number).objects) for number in (1, 2, 3)] == [1, 2, 3]


def test_an_unknown_stream_is_an_error_that_lists_the_streams():
    with pytest.raises(ValueError, match="train, validation, test, prompts"):
        sample_scene(0, "tset")

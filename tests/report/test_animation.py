"""Frames as files that move: both kinds, read back."""

import numpy as np
import pytest
from PIL import Image

from diffprobe.report.publish import write_animation

GREYS = (0, 80, 160, 240)


@pytest.fixture
def frames():
    """[4, 31, 45, 3]: sides that are not even, which H.264 does not take as they are."""
    return np.array(GREYS, np.uint8)[:, None, None, None] * np.ones((1, 31, 45, 3), np.uint8)


def test_a_gif_goes_forth_and_back_without_a_stop_at_its_ends(tmp_path, frames):
    with Image.open(write_animation(tmp_path, "moving", frames)["gif"]) as animation:
        assert (animation.n_frames, animation.size) == (6, (45, 31))
        assert animation.info["loop"] == 0
        shades = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            shades.append(animation.convert("L").getpixel((0, 0)))
    assert shades == [0, 80, 160, 240, 160, 80]


def test_an_mp4_has_the_same_frames(tmp_path, frames):
    av = pytest.importorskip("av", reason="PyAV, the extra 'video', is not installed")
    with av.open(str(write_animation(tmp_path, "moving", frames)["mp4"])) as film:
        found = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].codec_context.name == "h264"
    assert [frame.shape for frame in found] == [(32, 46, 3)] * 6
    assert [frame.mean() for frame in found] == pytest.approx([0, 80, 160, 240, 160, 80], abs=3)


def test_without_pyav_there_is_the_gif_alone(tmp_path, frames, monkeypatch):
    monkeypatch.setattr("diffprobe.report.publish.find_spec", lambda name: None)
    assert list(write_animation(tmp_path, "moving", frames)) == ["gif"]
    assert [path.name for path in tmp_path.iterdir()] == ["moving.gif"]

"""Frames as files that move."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from diffprobe.files import replacing

FRAME_MILLISECONDS = 250


def write_animation(folder: Path, name: str, frames: np.ndarray) -> dict[str, Path]:
    """Frames that go forth and back, as '<name>.gif', and '<name>.mp4' where PyAV (the extra 'video') is installed.

    Args:
        frames: [frames, H, W, 3] in [0, 255], at least two.

    Returns:
        The files by 'gif' and 'mp4'.
    """
    around = np.concatenate([frames, frames[-2:0:-1]])
    files = {"gif": write_gif(folder / f"{name}.gif", around)}
    if find_spec("av") is not None:
        files["mp4"] = write_mp4(folder / f"{name}.mp4", around)
    return files


def write_gif(path: Path, frames: np.ndarray) -> Path:
    """[frames, H, W, 3] in [0, 255] as a GIF without end."""
    from PIL import Image

    first, *others = [Image.fromarray(frame) for frame in frames]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, loop=0)
    return path


def write_mp4(path: Path, frames: np.ndarray) -> Path:
    """[frames, H, W, 3] in [0, 255] as H.264 that browsers and slides play; sides become even, as it asks."""
    import av

    even = np.pad(frames, [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)], mode="edge")
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(1000, FRAME_MILLISECONDS), options={"crf": "12"})
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in even:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return path

"""Pictures as data URIs: figures as they are, and films as one strip of all their frames."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path

import numpy as np

from diffprobe.report.page.html import Markup, tag
from diffprobe.report.page.page import Film

LARGEST = 160  # pixels a side of a frame; larger ones are made smaller
LOSSLESS = 64  # up to so many pixels a side pictures are PNG, and above JPEG
LARGE = 400_000  # bytes of a figure
QUALITY = 85  # of JPEG


def figure_uri(path: Path) -> str:
    """A PNG file; a large one, which has photographs in it, as JPEG."""
    from PIL import Image

    content = path.read_bytes()
    if len(content) <= LARGE:
        return _uri("png", content)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
        opened.convert("RGB").save(buffer, "jpeg", quality=QUALITY)
    return _uri("jpeg", buffer.getvalue())


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        return opened.size


def film_uri(film: Film) -> str:
    """All frames side by side, the first on the left: maps as PNG with a palette, pictures as PNG or JPEG."""
    from PIL import Image

    frames = film.frames
    if frames.ndim == 3:
        strip = Image.fromarray(np.concatenate(_levels(film), 1))
        strip.putpalette(_palette(film.colours))
    else:
        levels = (np.nan_to_num(frames).clip(0, 1) * 255).round().astype(np.uint8)
        strip = Image.fromarray(np.concatenate(list(levels), 1))
    height, width = frames.shape[1:3]
    shrunk = LARGEST / max(height, width)
    if shrunk < 1:
        size = (max(1, round(width * shrunk)) * len(frames), max(1, round(height * shrunk)))
        strip = strip.resize(size, Image.Resampling.NEAREST if frames.ndim == 3 else Image.Resampling.BOX)
    kind = "png" if frames.ndim == 3 or max(height, width) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    strip.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": QUALITY}))
    return _uri(kind, buffer.getvalue())


def frame(film: Film, description: str, at: int = 0) -> Markup:
    """The window on a film: one frame of it, moved by the page's script."""
    count, height, width = film.frames.shape[:3]
    style = f"--count:{count};--at:{at if count > 1 else 0};aspect-ratio:{width}/{height}"
    strip = tag("img", src=film_uri(film), alt="")
    return tag("div", strip, class_="frame", role="img", aria_label=description, data_count=count, style=style)


def _levels(film: Film) -> np.ndarray:
    """The frames as places in the palette; what has no value is the lowest."""
    span = (film.high - film.low) or 1.0
    shares = np.nan_to_num((np.asarray(film.frames, float) - film.low) / span)
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)


def _palette(colours: str) -> list[int]:
    from matplotlib import colormaps

    return (colormaps[colours](np.arange(256))[:, :3] * 255).round().astype(int).ravel().tolist()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"

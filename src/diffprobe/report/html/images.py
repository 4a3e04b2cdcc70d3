"""Pictures as data URIs: figures as they are, and pictures over steps as one strip."""

from __future__ import annotations

import io
from base64 import b64encode
from pathlib import Path

import numpy as np

from diffprobe.report.report import Frames

LARGEST = 160  # pixels a side of a picture; larger ones are made smaller
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
    """(width, height) of a PNG file in pixels."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as opened:
        return opened.size


def strip_uri(frames: Frames) -> str:
    """All pictures side by side, the first on the left: maps as PNG with a palette, pictures as PNG or JPEG."""
    from PIL import Image

    values = frames.values
    if values.ndim == 3:
        strip = Image.fromarray(np.concatenate(_levels(frames), 1))
        strip.putpalette(_palette(frames.colours))
    else:
        levels = (np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8)
        strip = Image.fromarray(np.concatenate(list(levels), 1))
    height, width = values.shape[1:3]
    shrunk = LARGEST / max(height, width)
    if shrunk < 1:
        size = (max(1, round(width * shrunk)) * len(values), max(1, round(height * shrunk)))
        strip = strip.resize(size, Image.Resampling.NEAREST if values.ndim == 3 else Image.Resampling.BOX)
    kind = "png" if values.ndim == 3 or max(height, width) <= LOSSLESS else "jpeg"
    buffer = io.BytesIO()
    strip.save(buffer, kind, **({"optimize": True} if kind == "png" else {"quality": QUALITY}))
    return _uri(kind, buffer.getvalue())


def _levels(frames: Frames) -> np.ndarray:
    """The maps as places in the palette; what has no value is the lowest."""
    span = (frames.high - frames.low) or 1.0
    shares = np.nan_to_num((np.asarray(frames.values, float) - frames.low) / span)
    return (shares.clip(0, 1) * 255).round().astype(np.uint8)


def _palette(colours: str) -> list[int]:
    from matplotlib import colormaps

    return (colormaps[colours](np.arange(256))[:, :3] * 255).round().astype(int).ravel().tolist()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"

"""What a source of real images asks of them: names, captions, pixels, and what determines the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from diffprobe.data.images import ImageFile, read_image


class Pictures(Protocol):
    """Images by row, read when they are asked for."""

    names: list[str]
    captions: list[str]

    def picture(self, row: int, size: int) -> Tensor:
        """[3, size, size], float32 in [0, 1]."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """Its `id` and what determines its pixels, as JSON values."""
        ...


class PictureFiles:
    """Image files; `fit` is how they become a square, see `read_image`."""

    def __init__(self, files: Sequence[ImageFile], fit: str = "stretch") -> None:
        self.files, self.fit = list(files), fit
        self.names = [file.name for file in files]
        self.captions = [file.caption for file in files]

    def picture(self, row: int, size: int) -> Tensor:
        return read_image(self.files[row], size, self.fit)

    def record(self, row: int) -> dict[str, Any]:
        file = self.files[row]
        digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
        return {"id": file.name, "caption": file.caption, "fit": self.fit, "sha256": digest}

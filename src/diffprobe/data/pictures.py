"""What a source of real images asks of them: names, captions, pixels, and what determines the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from torch import Tensor

from diffprobe.data.decoding import DecodedFile, inspect_image_file
from diffprobe.data.images import ImageFile, read_image
from diffprobe.fitting import Geometry


class ImageCollection(Protocol):
    """Images by row, read when they are asked for."""

    names: list[str]
    captions: list[str]

    def picture(self, row: int, size: int) -> Tensor:
        """[3, size, size], float32 in [0, 1]."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """Its `id` and what determines its pixels, as JSON values."""
        ...

    def geometry(self, row: int) -> Geometry | None:
        """How it became a square, for maps that follow it; None where no map is made of the original."""
        ...


class ImageFileCollection:
    """Image files; `fit` is how they become a square, see `read_image`.

    What a file holds when it is first asked for is what it has to hold from then on: activations are kept under the
    hash of its bytes, so other pixels must not come in under it.
    """

    def __init__(self, files: Sequence[ImageFile], fit: str = "stretch") -> None:
        self.files, self.fit = list(files), fit
        self.names = [file.name for file in files]
        self.captions = [file.caption for file in files]

    def picture(self, row: int, size: int) -> Tensor:
        self._contents(row)
        return read_image(self.files[row], size, self.fit)

    def record(self, row: int) -> dict[str, Any]:
        file = self.files[row]
        return {"id": file.name, "caption": file.caption, "fit": self.fit, "sha256": self._contents(row).sha256}

    def geometry(self, row: int) -> Geometry:
        found = self._contents(row)
        return Geometry(found.width, found.height, found.orientation, self.fit)

    def _contents(self, row: int) -> DecodedFile:
        file = self.files[row]
        if file.contents is None:
            file = self.files[row] = replace(file, contents=inspect_image_file(file.path))
        assert file.contents is not None
        return file.contents

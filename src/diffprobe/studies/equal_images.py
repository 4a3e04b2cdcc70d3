"""Pictures that are equal although their names are not, such as a model makes of two long prompts that begin alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.labels.pictures import eight_bit
from diffprobe.probes.splits import PARTS, Split


class PicturesOfParts:
    """Remembers of each picture which part of the split it is in, and lets none into a second one."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[str, str]] = {}  # (part, name) by what is to be seen at 8 bits

    def add(self, images: Tensor, names: Sequence[str], part: str) -> None:
        """Images [images, 3, H, W] in [0, 1] of one part.

        Raises:
            UserError: another part has an equal picture, so that scores on test images would say nothing.
        """
        for image, name in zip(eight_bit(images).contiguous(), names, strict=True):
            before, other = self._first.setdefault(hashlib.sha256(image.numpy().tobytes()).digest(), (part, name))
            if before != part:
                raise UserError(
                    f"the image {name}, which is to be in the part {part!r}, is the very picture of {other}, which is "
                    f"in {before!r}; leave one of the two out"
                )


def check_parts(images: Tensor, names: Sequence[str], split: Split) -> None:
    """Raises UserError if images [images, 3, H, W] of two parts are equal."""
    seen = PicturesOfParts()
    rows: Mapping[str, Sequence[int]] = {part: list(getattr(split, part)) for part in PARTS}
    for part, of_part in rows.items():
        for row in of_part:
            seen.add(images[row : row + 1], [names[row]], part)

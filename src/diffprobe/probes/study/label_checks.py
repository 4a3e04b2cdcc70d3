"""What is done and said about labels that a probe can hardly be wrong about, whatever it sees.

Pictures that are equal although their names are not, such as a model makes of two long prompts that begin alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.labels.labeler import eight_bit
from diffprobe.probes.position import POSITION
from diffprobe.probes.properties import property_named
from diffprobe.probes.score_table import select
from diffprobe.probes.splits import PARTS, Split

EASY = 0.95  # a score of the mean training label from which on labels are taken to be nearly the same in every image
SHOWN = 3


def one_valued(targets: Mapping[str, Tensor], names: Sequence[str]) -> list[tuple[str, str]]:
    """(property, image) of every target map [images, H, W] that has one value everywhere."""
    found = []
    for name, maps in targets.items():
        flat = maps.flatten(1)
        alike = (flat.amax(1) == flat.amin(1)).tolist()
        found += [(name, image) for image, same in zip(names, alike, strict=True) if same]
    return found


def skip_flat(scores: pd.DataFrame, flat: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The scores, missing where the image's mask lacks one class: its Dice says little of what was seen.

    Args:
        flat: from `one_valued`. Quantities of one value have no correlation anyway, and an rmse that means something.
    """
    value = scores["value"]
    for name in dict.fromkeys(name for name, _ in flat if property_named(name).binary):
        images = [image for item, image in flat if item == name]
        value = value.mask((scores["property"] == name) & scores["image"].isin(images))
    return scores.assign(value=value)


def warnings_of(scores: pd.DataFrame, flat: Sequence[tuple[str, str]], images: int) -> list[str]:
    """Sentences for people; none where the labels are such as they should be.

    Args:
        scores: those of the position control are looked at.
        flat: from `one_valued`, of all images.
    """
    lines = []
    for name in dict.fromkeys(name for name, _ in flat):
        whose = [image for item, image in flat if item == name]
        shown = ", ".join(whose[:SHOWN]) + (", ..." if len(whose) > SHOWN else "")
        binary = property_named(name).binary
        what = "no salient pixel, or no background" if binary else "the same value everywhere"
        means = "their Dice is left out of all scores" if binary else "they have no rank correlation"
        lines.append(f"the {name} labels of {len(whose)} of {images} images have {what}, so {means}: {shown}")
    for name in scores["property"].unique():
        headline = property_named(name).headline
        mean = select(scores, layer=POSITION, split="test", property=name, metric=headline)["value"].mean()
        if mean > EASY:
            lines.append(
                f"the {name} labels are nearly the same in every image: a map that sees no image, the mean training "
                f"label, reaches {headline} {mean:.2f} on test images, so that high scores show nothing; look at "
                "the label maps"
            )
    return [f"Warning: {line}." for line in lines]


class SplitOverlapCheck:
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
    seen = SplitOverlapCheck()
    rows: Mapping[str, Sequence[int]] = {part: list(getattr(split, part)) for part in PARTS}
    for part, of_part in rows.items():
        for row in of_part:
            seen.add(images[row : row + 1], [names[row]], part)

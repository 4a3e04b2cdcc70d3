"""What is done and said about labels that a probe can hardly be wrong about, whatever it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import fsum

from torch import Tensor

from diffprobe.probes.position import POSITION
from diffprobe.probes.properties import property_named
from diffprobe.probes.tables import Score

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


def skip_flat(scores: Sequence[Score], flat: Sequence[tuple[str, str]]) -> list[Score]:
    """The scores, missing where the image's mask lacks one class: its Dice says little of what was seen.

    Args:
        flat: from `one_valued`. Quantities of one value have no correlation anyway, and an rmse that means something.
    """
    without = {(name, image) for name, image in flat if property_named(name).binary}
    return [replace(row, value=None) if (row.property, row.image) in without else row for row in scores]


def warnings_of(scores: Sequence[Score], flat: Sequence[tuple[str, str]], images: int) -> list[str]:
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
    headline = {name: property_named(name).headline for name in {row.property for row in scores}}
    values: dict[str, list[float]] = {}
    for row in scores:
        if (row.layer, row.split, row.metric) == (POSITION, "test", headline[row.property]) and row.value is not None:
            values.setdefault(row.property, []).append(row.value)
    for name, found in values.items():
        mean = fsum(found) / len(found)
        if mean > EASY:
            lines.append(
                f"the {name} labels are nearly the same in every image: a map that sees no image, the mean training "
                f"label, reaches {headline[name]} {mean:.2f} on test images, so that high scores show nothing; look at "
                "the label maps"
            )
    return [f"Warning: {line}." for line in lines]

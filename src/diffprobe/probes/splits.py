"""Which images a probe trains on, is selected on, and is scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffprobe.activations.activations import rows_of
from diffprobe.errors import UserError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Row numbers of the images of each part."""

    train: list[int]
    validation: list[int]
    test: list[int]

    def __post_init__(self) -> None:
        """Raises UserError if a part is empty or an image is in two parts."""
        for part in PARTS:
            if not self.rows(part):
                raise UserError(f"the {part} part of the split is empty: give more images or a larger fraction to it.")
        repeated = [row for row, times in Counter([*self.train, *self.validation, *self.test]).items() if times > 1]
        if repeated:
            raise UserError(f"the split uses image row {repeated[0]} more than once: parts must not overlap.")

    def rows(self, part: str) -> list[int]:
        """Of a part, by its name in `PARTS`."""
        return getattr(self, part)


def split_images(
    images: int | Sequence[str],
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    seed: int = 0,
    test: Sequence[str] = (),
) -> Split:
    """Random split by image, given their number or names; `fractions` of train, validation and test sum to 1.

    Validation and test get at least one image each; the rest trains. Names in `test` are the test images, and the
    others are split into train and validation by the ratio of their fractions. Raises UserError when a part would be
    empty, or for an unknown name.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"split fractions {tuple(fractions)}: need three positive numbers that sum to 1.")
    count = images if isinstance(images, int) else len(images)
    random = np.random.default_rng(seed)
    if test:
        tested = rows_of([] if isinstance(images, int) else images, test)
        others = np.setdiff1d(np.arange(count), tested)
        validation = max(1, round(len(others) * fractions[1] / (fractions[0] + fractions[1])))
        chosen, rest = np.split(random.permutation(others), [validation])
        return Split(sorted(rest.tolist()), sorted(chosen.tolist()), sorted(tested))
    validation, tested = (max(1, round(count * fraction)) for fraction in fractions[1:])
    train = count - validation - tested
    if train < 1:
        raise UserError(f"{count} images cannot be split by {tuple(fractions)} into train, validation and test.")
    parts = np.split(random.permutation(count), [train, train + validation])
    return Split(*(sorted(part.tolist()) for part in parts))

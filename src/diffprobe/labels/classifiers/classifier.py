"""The interface of image classifiers, and which of their classes a text names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from diffprobe.errors import UserError

# How scores of a classifier are called in tables: as a property, and its metrics.
PROPERTY = "class"
CONFIDENCE, TOP_1, TOP_5, STABLE = "confidence", "top1", "top5", "stable"


class Classifier(Protocol):
    """Names what an image shows. It asks for packages and weights when it is made, before there is any image.

    Attributes:
        name: what it is called in tables.
        classes: what it can name; synonyms are separated by commas, as ImageNet has them ('tench, Tinca tinca').
    """

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> Sequence[str]: ...

    def check(self, image_size: int) -> None:
        """Raises UserError where images of so many pixels a side are none of its business."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """[images, 3, height, width] in [0, 1] -> probabilities [images, classes], float32 on the CPU."""
        ...


def class_in_text(text: str, classes: Sequence[str], patterns: Mapping[str, str]) -> int | None:
    """The class that a text is about, as a place in `classes`; None where that is not clear.

    The first of the `patterns` (regular expression -> class, see `checked_patterns`) that is found in the text decides.
    Where none is, the text must have the words of one class, in any of its synonyms. A name within a longer one does
    not count ('tiger' in 'tiger cat'); two classes, or two mentions of one, are not clear.
    """
    for pattern, name in patterns.items():
        if re.search(pattern, text, re.IGNORECASE):
            return class_named(name, classes)
    found = [(match.span(), place) for place, name in enumerate(classes) for match in _mentions(name, text)]
    outer = {
        (span, place)
        for span, place in found
        if not any(span != other and other[0] <= span[0] and span[1] <= other[1] for other, _ in found)
    }
    return outer.pop()[1] if len(outer) == 1 else None


def class_named(name: str, classes: Sequence[str]) -> int | None:
    """The class with this name or synonym, whatever the case."""
    wanted = name.casefold().strip()
    return next((at for at, each in enumerate(classes) if wanted in (each.casefold(), *_synonyms(each))), None)


def checked_patterns(patterns: Mapping[str, str], classes: Sequence[str], classifier: str) -> dict[str, str]:
    """The patterns as they are.

    Raises:
        UserError: one is no regular expression, or names a class that the classifier does not know.
    """
    for pattern, name in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"analysis.classes: {pattern!r} is no regular expression: {error}") from error
        if class_named(str(name), classes) is None:
            raise UserError(
                f"analysis.classes: {classifier} knows no class {name!r}; it knows {len(classes)}, such as "
                f"{'; '.join(classes[:3])}"
            )
    return {pattern: str(name) for pattern, name in patterns.items()}


def _synonyms(name: str) -> list[str]:
    return [part.strip().casefold() for part in name.split(",") if part.strip()]


def _mentions(name: str, text: str) -> list[re.Match[str]]:
    """Where a class is named, as whole words, once for each place."""
    folded = text.casefold()
    found = (re.finditer(rf"(?<!\w){re.escape(each)}(?!\w)", folded) for each in _synonyms(name))
    return [match for matches in found for match in matches]

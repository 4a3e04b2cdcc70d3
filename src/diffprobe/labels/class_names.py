"""Names of a model's classes, whose synonyms are separated by commas: 'tench, Tinca tinca'."""

from __future__ import annotations

from collections.abc import Sequence


def class_named(name: str, classes: Sequence[str]) -> int | None:
    """The index of the first of `classes_named`; None without one."""
    return next(iter(classes_named(name, classes)), None)


def classes_named(name: str, classes: Sequence[str]) -> list[int]:
    """The indices of the classes with this name, whatever the case: of those that are called so in full; without one, of
    those whose first synonym it is; without one, of those with it among their synonyms.

    'screen' is the second of 'screen door, screen' and 'screen, projection screen' (ADE20K has both).
    """
    wanted = name.casefold().strip()
    known = [(each.casefold().strip(), synonyms(each)) for each in classes]
    for fits in (
        [wanted == whole for whole, _ in known],
        [wanted in parts[:1] for _, parts in known],
        [wanted in parts for _, parts in known],
    ):
        if any(fits):
            return [index for index, one in enumerate(fits) if one]
    return []


def synonyms(name: str) -> list[str]:
    """The names of a class, in lower case."""
    return [part.strip().casefold() for part in name.split(",") if part.strip()]

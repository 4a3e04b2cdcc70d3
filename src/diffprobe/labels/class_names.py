"""Names of a model's classes, whose synonyms are separated by commas: 'tench, Tinca tinca'."""

from __future__ import annotations

from collections.abc import Sequence


def class_named(name: str, classes: Sequence[str]) -> int | None:
    """The index of the class with this name or synonym, whatever the case."""
    wanted = name.casefold().strip()
    return next((index for index, each in enumerate(classes) if wanted in (each.casefold(), *synonyms(each))), None)


def synonyms(name: str) -> list[str]:
    return [part.strip().casefold() for part in name.split(",") if part.strip()]

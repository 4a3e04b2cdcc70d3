"""Names of a model's classes, whose synonyms are separated by commas: 'tench, Tinca tinca'."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from diffprobe.errors import UserError
from diffprobe.properties import categorical

NONE = int(categorical.NONE)
OTHER = "other"


def class_named(name: str, classes: Sequence[str]) -> int | None:
    """The index of the first of `classes_named`; None without one."""
    return next(iter(classes_named(name, classes)), None)


def classes_named(name: str, classes: Sequence[str]) -> list[int]:
    """The indices of the classes with this name, whatever the case: of those that are called so in full; without one,
    of those whose first synonym it is; without one, of those with it among their synonyms.

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


def numbers_in(name: str, classes: Sequence[str], known: Sequence[str]) -> list[int]:
    """The number in the `classes` of property `name` of each class that a model knows; -1 for none.

    A class 'other' that the model does not know is that of all that are not listed.

    Raises:
        UserError: the model does not know one of the `classes`, or knows several by that name; or two are the same.
    """
    numbers = [NONE] * len(known)
    for number, wanted in enumerate(classes):
        found = classes_named(wanted, known)
        if not found and wanted.casefold() == OTHER:
            continue
        if len(found) != 1:
            raise UserError(f"property {name}: {_problem(wanted, found, known)}")
        if numbers[found[0]] != NONE:
            first = classes[numbers[found[0]]]
            raise UserError(f"property {name}: {first!r} and {wanted!r} are one class of the model; give one of them")
        numbers[found[0]] = number
    others = [number for number, wanted in enumerate(classes) if wanted.casefold() == OTHER and number not in numbers]
    return [others[0] if others and number == NONE else number for number in numbers]


def _problem(wanted: str, found: Sequence[int], known: Sequence[str]) -> str:
    if found:
        return f"the model has {len(found)} classes called {wanted!r}: {'; '.join(known[index] for index in found)}"
    names = {part.strip().casefold(): part.strip() for name in known for part in (name, *name.split(","))}
    near = get_close_matches(wanted.casefold(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(names[each] for each in near)}?" if near else f"such as {'; '.join(known[:3])}"
    return f"the model knows no class {wanted!r} among its {len(known)}; {hint}"


def class_names(id2label: Any, model: str) -> list[str]:
    """The names of a model's classes in the order of their numbers, from its configuration.

    Raises:
        UserError: they are missing or empty, or not numbered from 0 on.
    """
    try:
        names = {int(number): " ".join(str(name).split()) for number, name in id2label.items()}
    except (AttributeError, ValueError):
        names = {}
    if sorted(names) != list(range(len(names))) or len(names) < 2 or not all(names.values()):
        raise UserError(f"{model} does not name its classes: its config.json has no id2label with names from 0 on")
    return [names[number] for number in range(len(names))]


def short_names(names: Sequence[str], model: str) -> list[str]:
    """What to call each class: its first synonym, or its whole name where that is of another class too.

    Raises:
        UserError: two classes have one name.
    """
    short = [name.split(",")[0].strip() or name for name in names]
    short = [one if classes_named(one, names) == [at] else names[at] for at, one in enumerate(short)]
    for at, one in enumerate(short):
        if classes_named(one, names) != [at]:
            raise UserError(f"{model} has two classes called {one!r}, so that its names do not tell them apart")
    return short

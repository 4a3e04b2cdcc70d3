"""Which values a setting may have, written beside its type: `draws: Annotated[int, Number(1, 100)]`.

`checked_value` holds a value against the type and the ranges of its `Annotated`, for settings and arguments alike.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from diffprobe.errors import UserError


@dataclass(frozen=True)
class Number:
    """From `low` to `high`, both included; `above` and `below` are limits that are not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def checked(self, value: float, key: str) -> float:
        """Raises UserError outside the range."""
        if not self.contains(value):
            raise UserError(f"{key}={shown(value)}: must be {self.words}")
        return value

    def contains(self, value: float) -> bool:
        """Whether the value is in the range; NaN is in none."""
        return (
            value == value
            and (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    @property
    def words(self) -> str:
        """'at least 1', 'above 0 and at most 10'."""
        ends = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        return " and ".join(f"{words} {_plain(end)}" for words, end in ends if end is not None)


@dataclass(init=False, unsafe_hash=True)
class Choice:
    """One of these words; `noun` says what they are, where that says more than the key."""

    options: tuple[str, ...]
    noun: str

    def __init__(self, *options: str, noun: str = "") -> None:
        self.options, self.noun = options, noun

    def checked(self, value: str, key: str) -> str:
        """Raises UserError for another word, with the nearest."""
        if value in self.options:
            return value
        near = get_close_matches(str(value), self.options, n=1)
        hint = f"did you mean {near[0]}? " if near and len(self.options) > 2 else ""
        what = f"no {self.noun} {value!r}; " if self.noun else ""
        raise UserError(f"{key}={shown(value)}: {what}{hint}choose one of {', '.join(self.options)}")


@dataclass(frozen=True)
class Text:
    """Words that are not empty, without line breaks and other control characters."""

    def checked(self, value: str, key: str) -> str:
        """Raises UserError for an empty text, and for one with a control character."""
        if not value.strip():
            raise UserError(f"{key} is empty; give it as {key}=VALUE, or leave it out")
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise UserError(f"{key}={value!r}: must not hold line breaks or other control characters")
        return value


@dataclass(frozen=True)
class Name(Text):
    """A name in tables and files: at most 100 characters, and no / but between `folders`."""

    folders: bool = False

    def checked(self, value: str, key: str) -> str:
        """Raises UserError for what cannot name a file."""
        super().checked(value, key)
        parts = value.split("/") if self.folders else [value]
        bad = any(part.strip() in ("", ".", "..") or re.search(r"[/\\]", part) for part in parts)
        if bad or len(value) > 100:
            raise UserError(
                f"{key}={shown(value)}: is used as a name of files: at most 100 characters, "
                f"{'no' if self.folders else 'no / and no'} backslash, and not . or .."
            )
        return value


class Place(Text):
    """A path (or what may stand instead of one); ~ becomes the user's home."""

    def checked(self, value: str, key: str) -> str:
        """Raises UserError for an empty path, or the home of a user who does not exist."""
        return expanded(super().checked(value, key), key)


@dataclass(frozen=True)
class Items:
    """How many items a list or mapping must have, and whether each may be there once only."""

    least: int = 0
    most: int | None = None
    distinct: bool = True

    def checked(self, value: Sequence[Any] | Mapping[str, Any], key: str) -> Any:
        """Raises UserError for too few, too many, and one that is there twice."""
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            wanted = f"exactly {self.least}" if self.least == self.most else f"at least {self.least}"
            if len(value) >= self.least:
                wanted = f"at most {self.most}"
            raise UserError(f"{key}={shown(value)}: give {wanted}")
        if self.distinct and not isinstance(value, Mapping):
            twice = [item for at, item in enumerate(value) if item in value[:at]]
            if twice:
                raise UserError(f"{key}={shown(value)}: {shown(twice[0])} is there twice; give each once")
        return value


@dataclass(init=False, unsafe_hash=True)
class Keys:
    """The keys that a mapping may have; `noun` says what they are."""

    options: tuple[str, ...]
    noun: str

    def __init__(self, *options: str, noun: str) -> None:
        self.options, self.noun = options, noun

    def checked(self, value: Mapping[str, Any], key: str) -> Any:
        """Raises UserError for another key."""
        for name in value:
            if name not in self.options:
                raise UserError(f"{key}: no {self.noun} {name!r}; choose among {', '.join(self.options)}")
        return value


@dataclass(frozen=True)
class WordOr:
    """One of some words, or a value of another hint."""

    words: tuple[str, ...]
    hint: Any

    def checked(self, value: Any, key: str) -> Any:
        """Raises UserError for neither."""
        if not isinstance(value, str):
            return checked_value(value, self.hint, key)
        if value not in self.words:
            raise UserError(f"{key}={shown(value)}: must be {described(self.hint)}, or {' or '.join(self.words)}")
        return value


@dataclass(frozen=True)
class OneOrMore:
    """One value of a hint, or a list of different ones that is not empty."""

    hint: Any

    def checked(self, value: Any, key: str) -> Any:
        """Raises UserError for an empty list, and for items of another kind or twice there."""
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        return checked_value(value, Annotated[list[self.hint], Items(least=1)] if is_list else self.hint, key)


# What many classes take.
Count = Annotated[int, Number(1, 100_000)]
Share = Annotated[float, Number(above=0, high=1)]
Folder = Annotated[str, Place()]  # or file
# Of the images, to train, select and test on.
Fractions = Annotated[list[Annotated[float, Number(above=0, below=1)]], Items(3, 3, distinct=False)]


def checked_value(value: Any, hint: Any, key: str) -> Any:
    """The value as a type hint with ranges wants it; `key` names it in errors.

    Numbers and words are not taken for each other, except digits in quotes. A number is never NaN or infinite.

    Raises:
        UserError: it is of another type, or out of range.
    """
    hint, ranges = _parted(hint)
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) in options or (hint is Any and not ranges):
            return None
        raise UserError(f"{key} is null; give it as {key}=VALUE")
    options = [option for option in options if option is not type(None)]
    value = _by_first_that_fits([Annotated[str, Place()]] if Path in options else options, value, key)
    return _in_ranges(value, ranges, key)


def described(hint: Any) -> str:
    """A hint in words: 'a whole number at least 1'."""
    hint, ranges = _parted(hint)
    kind = get_origin(hint) or hint
    if kind is Literal:
        return f"one of {', '.join(map(shown, get_args(hint)))}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    words |= dict.fromkeys(_LISTS, "a list") | dict.fromkeys(_MAPPINGS, "a mapping")
    return " ".join([words.get(kind, "a value"), *(limits.words for limits in ranges if isinstance(limits, Number))])


def expanded(path: str, key: str = "path") -> str:
    """A path with ~ and ~user at its beginning replaced. Raises UserError where there is no such user."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise UserError(f"{key}={path}: there is no home folder of {path.split('/')[0]}") from error


def typed_path(text: str) -> Path:
    """A path as an argument of a command: `type=` of argparse, which reports a ValueError as the user's mistake."""
    try:
        return Path(expanded(text))
    except UserError as error:
        raise ValueError(str(error)) from error


def shown(value: Any) -> str:
    """A value as a person would type it, shortened."""
    if isinstance(value, str):
        text = value if value.isprintable() and value else repr(value)
    elif isinstance(value, float):
        text = repr(value).removesuffix(".0")
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{name}: {shown(item)}" for name, item in value.items()) + "}"
    elif isinstance(value, Iterable):
        text = "[" + ", ".join(map(shown, value)) + "]"
    else:
        text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    return text if len(text) <= 80 else f"{text[:80]}..."


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) and number >= 10000 else f"{number:g}"


def _parted(hint: Any) -> tuple[Any, list[Any]]:
    """A hint without its ranges, and the ranges; an `Annotated` may hold other notes too."""
    if get_origin(hint) is not Annotated:
        return hint, []
    bare, *notes = get_args(hint)
    return bare, [note for note in notes if hasattr(type(note), "checked")]


def _in_ranges(value: Any, ranges: Iterable[Any], key: str) -> Any:
    for limits in ranges:
        value = limits.checked(value, key)
    return value


def _by_first_that_fits(options: Sequence[Any], value: Any, key: str) -> Any:
    """The value by the first of some hints that takes it; the hint of its own type is tried before the others.

    A list is held against the only hint of a list, which says what is wrong with its items.
    """
    lists = [option for option in options if (get_origin(_parted(option)[0]) or _parted(option)[0]) in _LISTS]
    if isinstance(value, _LISTS[0]) and len(lists) == 1 and not {Any, object} & {_parted(each)[0] for each in options}:
        options = lists
    for option in sorted(options, key=lambda option: _parted(option)[0] is not type(value)):
        hint, ranges = _parted(option)
        try:
            return _in_ranges(_typed(value, hint, key), ranges, key)
        except UserError:
            if len(options) == 1:
                raise
    words = dict.fromkeys(described(option) for option in options if option is not int or float not in options)
    raise UserError(f"{key}={shown(value)}: must be {', or '.join(word for word in words if word != 'a value')}")


def _typed(value: Any, hint: Any, key: str) -> Any:
    """The value, if it is of this type, with its items checked. Raises UserError otherwise."""
    kind = get_origin(hint) or hint
    if kind in (Any, object):
        return value
    if kind is Literal:
        if any(value == word and type(value) is type(word) for word in get_args(hint)):
            return value
        return Choice(*map(str, get_args(hint))).checked(str(value), key)
    if kind in _LISTS:
        item = (get_args(hint) or (Any,))[0]
        if isinstance(value, str) or not isinstance(value, Sequence):
            checked_value(value, item, key)  # so that no list is suggested that would be refused
            items = {int: "whole numbers", float: "numbers", str: "words"}.get(_parted(item)[0], "values")
            raise UserError(f"{key}={shown(value)}: give a list of {items}, such as [{shown(value)}]")
        return [checked_value(each, item, key) for each in value]
    if kind in _MAPPINGS:
        if not isinstance(value, Mapping):
            raise UserError(f"{key}: must be a mapping such as {{NAME: VALUE}}, not {shown(value)}")
        item = (get_args(hint) or (str, Any))[1]
        return {str(name): checked_value(each, item, f"{key}.{name}") for name, each in value.items()}
    if kind not in _SIMPLE:
        name = getattr(kind, "__name__", str(kind))
        raise UserError(f"{key}={shown(value)}: must be made by a class, {key}._target_=MODULE.CLASS (a {name})")
    return _SIMPLE[kind](value, key)


def _bool(value: Any, key: str) -> bool:
    if isinstance(value, bool):
        return value
    raise UserError(f"{key}: must be true or false, not {shown(value)}")


def _int(value: Any, key: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,20}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    given = repr(value) if isinstance(value, float) else shown(value)  # 1.0 would be shown as 1
    raise UserError(f"{key}: must be a whole number, not {given}")


def _float(value: Any, key: str) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{key}: must be a number, not {shown(value)}")
    return number


def _str(value: Any, key: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float | bool):
        raise UserError(f"{key}: must be text, and {shown(value)} is read as a value; in quotes: \"{key}='TEXT'\"")
    raise UserError(f"{key}: must be text, not {shown(value)}")


_SIMPLE = {bool: _bool, int: _int, float: _float, str: _str}
_LISTS = (list, tuple, Sequence, Iterable)
_MAPPINGS = (dict, Mapping)

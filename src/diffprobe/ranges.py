"""Which values a setting may have, written beside its type: `draws: Annotated[int, Number(1, 100)]`.

A type hint says what a value is, and a range in its `Annotated` which of those values mean something. Both are held
against a value in one place, `checked_value`, so that settings and the arguments of classes are declared alike.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin

from diffprobe.errors import UserError


class Range(Protocol):
    """What a value of the right type has to fulfil beside that."""

    def checked(self, value: Any, key: str) -> Any:
        """The value as it is used. Raises UserError, which names the key and the range, for one outside."""


@dataclass(frozen=True)
class Number:
    """From `low` to `high`, both included; with `above` or `below` that end is not."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def checked(self, value: float, key: str) -> float:
        """Raises UserError outside the range."""
        if not self.contains(value):
            raise UserError(f"{key}={shown(value)}: must be {self.told}")
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
    def told(self) -> str:
        """In words: 'at least 1', 'above 0 and at most 10'."""
        ends = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        return " and ".join(f"{words} {_plain(end)}" for words, end in ends if end is not None)


@dataclass(frozen=True)
class Choice:
    """One of these words, each a `called` where that says more than the key."""

    options: tuple[str, ...]
    called: str

    def __init__(self, *options: str, called: str = "") -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "called", called)

    def checked(self, value: str, key: str) -> str:
        """Raises UserError for another word, with the nearest."""
        if value in self.options:
            return value
        near = get_close_matches(str(value), self.options, n=1)
        hint = f"did you mean {near[0]}? " if near and len(self.options) > 2 else ""
        what = f"no {self.called} {value!r}; " if self.called else ""
        raise UserError(f"{key}={shown(value)}: {what}{hint}choose one of {', '.join(self.options)}")


@dataclass(frozen=True)
class Text:
    """Words that are not empty, without line breaks and other control characters."""

    def checked(self, value: str, key: str) -> str:
        """Raises UserError for none, and for one with a control character."""
        if not value.strip():
            raise UserError(f"{key} is empty; give it as {key}=VALUE, or leave it out")
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise UserError(f"{key}={value!r}: must not hold line breaks or other control characters")
        return value


@dataclass(frozen=True)
class Name(Text):
    """What something is called in tables and files: at most 100 characters, none that parts a path."""

    folders: bool = False  # whether it may be some folders deep, 'a/b'

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


@dataclass(frozen=True)
class Place(Text):
    """A path (or what may stand instead of one), in which ~ is the user's home."""

    def checked(self, value: str, key: str) -> str:
        """With ~ replaced. Raises UserError for an empty path, or the home of a user who is not there."""
        super().checked(value, key)
        return expanded(value, key)


@dataclass(frozen=True)
class Items:
    """Of a list or mapping: how many it must have, and none twice."""

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


@dataclass(frozen=True)
class Keys:
    """Of a mapping: its keys are of these words, each a `called`."""

    options: tuple[str, ...]
    called: str

    def __init__(self, *options: str, called: str) -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "called", called)

    def checked(self, value: Mapping[str, Any], key: str) -> Any:
        """Raises UserError for another key."""
        for name in value:
            if name not in self.options:
                raise UserError(f"{key}: no {self.called} {name!r}; choose among {', '.join(self.options)}")
        return value


@dataclass(frozen=True)
class WordOr:
    """One of some words, or a value of another hint."""

    words: tuple[str, ...]
    hint: Any

    def checked(self, value: Any, key: str) -> Any:
        """Raises UserError for neither."""
        if isinstance(value, str):
            if value in self.words:
                return value
            raise UserError(f"{key}={shown(value)}: must be {described(self.hint)}, or {' or '.join(self.words)}")
        return checked_value(value, self.hint, key)


@dataclass(frozen=True)
class OneOrMore:
    """One value of a hint, or a list of them that is not empty."""

    hint: Any

    def checked(self, value: Any, key: str) -> Any:
        """Raises UserError for an empty list, for items that are none, and for one that is there twice."""
        if isinstance(value, str) or not isinstance(value, Sequence):
            return checked_value(value, self.hint, key)
        return checked_value(value, Annotated[list[self.hint], Items(least=1)], key)


# What many classes take.
Count = Annotated[int, Number(1, 100_000)]
Share = Annotated[float, Number(above=0, high=1)]
Folder = Annotated[str, Place()]  # or file
# Of the images, to train, select and test on.
Fractions = Annotated[list[Annotated[float, Number(above=0, below=1)]], Items(3, 3, distinct=False)]


def checked_value(value: Any, hint: Any, key: str) -> Any:
    """The value as a type hint with ranges wants it; `key` is what it is called in errors.

    Numbers and words are not taken for each other, but for digits in quotes. A number is never NaN or infinite.

    Raises:
        UserError: it is of another type, or out of range.
    """
    hint, ranges = _parted(hint)
    options = _alternatives(hint)
    if value is None:
        if type(None) in options or (hint is Any and not ranges):
            return None
        raise UserError(f"{key} is null; give it as {key}=VALUE")
    wanted = [option for option in options if option is not type(None)]
    value = _by_one_of([Annotated[str, Place()]] if Path in wanted else wanted, value, key)
    for limits in ranges:
        value = limits.checked(value, key)
    return value


def described(hint: Any) -> str:
    """A hint in words: 'a whole number at least 1'."""
    hint, ranges = _parted(hint)
    kind = get_origin(hint) or hint
    if kind is Literal:
        return f"one of {', '.join(map(shown, get_args(hint)))}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    words |= dict.fromkeys(_LISTS, "a list") | dict.fromkeys(_MAPPINGS, "a mapping")
    limits = [limits.told for limits in ranges if isinstance(limits, Number)]
    return " ".join([words.get(kind, "a value"), *limits])


def expanded(path: str, key: str = "path") -> str:
    """A path with ~ and ~user at its beginning replaced. Raises UserError where there is no such user."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise UserError(f"{key}={path}: there is no home folder of {path.split('/')[0]}") from error


def typed_path(text: str) -> Path:
    """An argument of a command that is a path, for argparse, which takes the error of no such user for its own."""
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
        text = {None: "null", True: "true", False: "false"}.get(value, str(value)) if _is_word(value) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _plural(hint: Any) -> str:
    """What a list of a hint holds, in words."""
    item = _parted((get_args(hint) or (Any,))[0])[0]
    return {int: "whole numbers", float: "numbers", str: "words"}.get(item, "values")


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _plain(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) and number >= 10000 else f"{number:g}"


def _parted(hint: Any) -> tuple[Any, tuple[Range, ...]]:
    """A hint without its ranges, and the ranges."""
    if get_origin(hint) is Annotated:
        bare, *ranges = get_args(hint)
        return bare, tuple(each for each in ranges if hasattr(type(each), "checked"))  # others may note other things
    return hint, ()


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _by_one_of(options: Sequence[Any], value: Any, key: str) -> Any:
    """The value by the first of some hints that takes it, that of its own type before the others."""
    if len(options) == 1:
        return _by(options[0], value, key)
    for option in sorted(options, key=lambda option: _parted(option)[0] is not type(value)):
        try:
            return _by(option, value, key)
        except UserError:
            continue
    told = dict.fromkeys(described(option) for option in options if option is not int or float not in options)
    raise UserError(f"{key}={shown(value)}: must be {', or '.join(one for one in told if one != 'a value')}")


def _by(option: Any, value: Any, key: str) -> Any:
    hint, ranges = _parted(option)
    value = _typed(value, hint, key)
    for limits in ranges:
        value = limits.checked(value, key)
    return value


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
            raise UserError(f"{key}={shown(value)}: give a list of {_plural(hint)}, such as [{shown(value)}]")
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
    given = repr(value) if isinstance(value, float) else shown(value)  # 1.0 is none, and would be shown as 1
    raise UserError(f"{key}: must be a whole number, not {given}")


def _float(value: Any, key: str) -> float:
    found = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{key}: must be a number, not {shown(value)}")
    return found


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

"""Values against type hints with ranges: taken as they are, or refused with key, value and range."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import pytest

from diffprobe.errors import UserError
from diffprobe.ranges import (
    Choice,
    Items,
    Keys,
    Name,
    Number,
    OneOrMore,
    Place,
    Text,
    WordOr,
    checked_value,
    described,
    expanded,
    shown,
    typed_path,
)

COUNT = Annotated[int, Number(1, 100)]
SHARE = Annotated[float, Number(above=0, below=1)]


def refusal(value: Any, hint: Any) -> str:
    with pytest.raises(UserError) as caught:
        checked_value(value, hint, "key")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "hint", "taken"),
    [
        (3, COUNT, 3),
        ("3", COUNT, 3),  # of an environment variable
        (1, SHARE | None, None),
        (None, SHARE | None, None),
        (1, float, 1.0),
        ("0.5", SHARE, 0.5),
        (7, str, "7"),
        ([1, 2], Annotated[list[float], Items(1)], [1.0, 2.0]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({64: "x"}, dict[str, str], {"64": "x"}),
        ("all", Annotated[Any, WordOr(("all",), COUNT)], "all"),
        (4, Annotated[Any, WordOr(("all",), COUNT)], 4),
        (4, Annotated[Any, OneOrMore(COUNT)], 4),
        ([4, 5], Annotated[Any, OneOrMore(COUNT)], [4, 5]),
        ("~", Annotated[str, Place()], str(Path.home())),
        ("~/x", str | Path | None, str(Path.home() / "x")),
        ("a/b", Annotated[str, Name(folders=True)], "a/b"),
    ],
)
def test_what_means_something_is_taken(value, hint, taken):
    if taken is None and value is not None:
        assert "must be above 0 and below 1" in refusal(value, hint)
    else:
        assert checked_value(value, hint, "key") == taken


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "abc", "", True, [], {}, 10**400])
@pytest.mark.parametrize("hint", [float, SHARE, int, COUNT])
def test_no_number_is_nan_infinite_or_something_else(value, hint):
    if not (value == 10**400 and hint is int):
        assert refusal(value, hint).startswith("key")


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (0, COUNT, "key=0: must be at least 1 and at most 100"),
        (101, COUNT, "key=101: must be at least 1"),
        (1.5, COUNT, "key: must be a whole number, not 1.5"),
        (3.0, COUNT, "must be a whole number, not 3.0"),
        (None, COUNT, "key is null"),
        (1, bool, "key: must be true or false, not 1"),
        ("yes", bool, "must be true or false, not yes"),
        (True, str, "is read as a value"),
        (1e3, str, "in quotes"),
        ([], str, "must be text, not []"),
        ("", Annotated[str, Text()], "key is empty"),
        (" ", Annotated[str, Place()], "key is empty"),
        ("a\nb", Annotated[str, Text()], "line breaks"),
        ("..", Annotated[str, Name()], "a name of files"),
        ("a/b", Annotated[str, Name()], "a name of files"),
        ("a/../b", Annotated[str, Name(folders=True)], "a name of files"),
        ("a" * 101, Annotated[str, Name()], "at most 100 characters"),
        ("lsm", Annotated[str, Choice("lms", "ddim", "own")], "did you mean lms? choose one of lms, ddim, own"),
        ("x", list[int], "key: must be a whole number, not x"),
        (3, list[int], "key=3: give a list of whole numbers, such as [3]"),
        ([], Annotated[list[int], Items(1)], "key=[]: give at least 1"),
        ([1, 2], Annotated[list[int], Items(3, 3)], "key=[1, 2]: give exactly 3"),
        ([1, 2, 3], Annotated[list[int], Items(0, 2)], "give at most 2"),
        ([1, 2, 1], Annotated[list[int], Items()], "1 is there twice"),
        ([1, "x"], list[int], "key: must be a whole number, not x"),
        ({"b": 1}, Annotated[dict[str, float], Keys("a", noun="score")], "no score 'b'; choose among a"),
        ({"a": -1}, dict[str, COUNT], "key.a=-1: must be at least 1"),
        ([], Annotated[Any, OneOrMore(COUNT)], "give at least 1"),
        ([0.7], Annotated[Any, OneOrMore(COUNT)], "key: must be a whole number, not 0.7"),
        ("some", Annotated[Any, WordOr(("all",), COUNT)], "must be a whole number at least 1 and at most 100, or all"),
    ],
)
def test_what_means_nothing_is_refused_with_its_range(value, hint, message):
    assert message in refusal(value, hint)


def test_the_home_of_a_user_who_is_not_there_is_refused():
    with pytest.raises(UserError, match="no home folder of ~nobody_of_that_name"):
        expanded("~nobody_of_that_name/x")
    assert expanded("a/~b") == "a/~b"


def test_ranges_and_values_are_told_in_words():
    assert described(SHARE) == "a number above 0 and below 1"
    assert shown({"a": [None, True, 1.5]}) == "{a: [null, true, 1.5]}"
    assert shown("") == "''"
    assert len(shown("x" * 1000)) < 100


def test_home_is_replaced_in_the_arguments_of_commands():
    assert typed_path("~/scenes") == Path.home() / "scenes"
    with pytest.raises(ValueError, match="no home folder"):
        typed_path("~nobody_of_that_name")

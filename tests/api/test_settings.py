"""Values of Python arrive at a configuration as they were given."""

from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffprobe.api.settings import as_list, typed
from diffprobe.errors import UserError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def read(text: str):
    return OmegaConf.create({"key": OverridesParser.create().parse_override(text).value()}).key


@given(VALUES.filter(lambda value: value is not None))
def test_hydra_reads_back_every_value(value):
    (text,) = typed({"key": value})
    assert read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "1e3",
        "null",
        "true",
        "0x10",
        "a=b",
        "a b",
        "it's",
        "$x",
        "[a",
        "NaN",
        "a,b",
        "x:y",
        "\\",
        "a\\'",
        "${seed}",
        "\\${seed}",
    ],
)
def test_a_text_stays_a_text(text):
    (override,) = typed({"key": text})
    assert read(override) == text


def test_numbers_of_numpy_and_paths_are_taken():
    assert typed({"a": np.int64(3), "b": Path("x/y.csv"), "c": (1, 2), "d": {"k": [1.5]}}) == [
        "a=3",
        "b=x/y.csv",
        "c=[1,2]",
        "d={k:[1.5]}",
    ]


def test_what_is_no_setting_is_refused():
    with pytest.raises(UserError, match=r"probe\.epochs=<object"):
        typed({"probe.epochs": object()})


def test_one_value_is_a_list_of_it():
    assert (as_list("a"), as_list(["a"]), as_list(None), as_list(3)) == (["a"], ["a"], None, [3])

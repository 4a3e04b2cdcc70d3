"""Numbers as text."""

import math

import pytest

from diffprobe.report.wording import interval, p_text, rounded


@pytest.mark.parametrize(
    ("p", "log10_p", "text"),
    [
        (0.36489, math.log10(0.36489), "0.36"),
        (0.00029, None, "0.00029"),
        (1.5e-31, math.log10(1.5e-31), "1.5e-31"),
        (0.0, -435.5, "3.2e-436"),
        (0.0, -436.043274, "9.1e-437"),  # H = 2000
        (0.0, -400.001, "1.0e-400"),  # 0.998e-400 rounds up to the next power
        (3e-310, math.log10(3e-310), "3.0e-310"),  # a float of few digits
        (0.0, None, "0"),
        (None, None, ""),
    ],
)
def test_p_keeps_two_digits_beyond_what_a_float_holds(p, log10_p, text):
    assert p_text(p, log10_p) == text


def test_an_interval_is_shown_where_there_is_one_and_nothing_without_a_value():
    assert interval(0.861, 0.83, 0.889) == "0.86 [0.83, 0.89]"
    assert interval(0.861, None, 0.889) == "0.86"
    assert interval(None, None, None) == interval(math.nan, 0.1, 0.2) == ""


def test_no_minus_stands_before_zero():
    assert rounded(-0.001) == "0.00"

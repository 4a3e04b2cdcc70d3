"""Rates of false alarms, with bounds that a test of the stated level would break once in a thousand on either side."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.null_rates import LEVEL, NULLS, Null, rejections
from scipy.stats import binom

SIMULATIONS, IMAGES = 150, 50
LOWER, UPPER = binom.ppf(0.001, SIMULATIONS, LEVEL), binom.isf(0.001, SIMULATIONS, LEVEL)  # 1 and 17 of 150


@pytest.mark.slow
@pytest.mark.parametrize("null", [NULLS[1], NULLS[3]], ids=lambda null: null.name)
def test_permutations_of_images_keep_their_level_where_kruskal_wallis_does_not(null: Null) -> None:
    found = rejections(replace(null, images=IMAGES), SIMULATIONS, intervals=False)
    assert LOWER <= found["between images"] <= UPPER
    assert LOWER <= found["within images"] <= UPPER
    assert found["Kruskal-Wallis scdi, dcdi"] > SIMULATIONS / 2

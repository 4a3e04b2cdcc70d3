"""Paired differences: exact against all flips, and by how often they claim what is not there."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from diffprobe.statistics.differences import holm, images_needed, paired_differences, sign_flip_p
from diffprobe.statistics.intervals import SIGNIFICANT
from tests.statistics.test_means import DRAWS


def test_few_images_are_flipped_in_every_way() -> None:
    for images in (1, 2, 5, 8):
        differences = np.random.default_rng(images).normal(0.6, 1, images)
        observed = abs(differences.sum())
        flipped = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=images)]
        expected = np.mean([value >= observed - 1e-12 for value in flipped])
        assert sign_flip_p(differences[None])[0] == pytest.approx(expected)


def test_many_images_are_flipped_at_random_and_the_seed_tells_how() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, (3, 25))
    found = sign_flip_p(differences, seed=1)
    for row, p in zip(differences, found, strict=True):
        theirs = stats.permutation_test((row,), np.mean, permutation_type="samples", random_state=0)
        assert p == pytest.approx(theirs.pvalue, abs=0.012)
    assert (found == sign_flip_p(differences, seed=1)).all()
    assert (found != sign_flip_p(differences, seed=2)).any()


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("images", [1, 2, 3, 5, 8, 20, 40])
def test_no_difference_is_claimed_in_no_more_than_six_percent(kind: str, images: int) -> None:
    found = paired_differences(DRAWS[kind](np.random.default_rng(3), (4000, images)))
    assert (found.p <= SIGNIFICANT).mean() <= 0.06
    assert not ((found.p <= SIGNIFICANT) & (found.low <= 0) & (found.high >= 0)).any()


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("images", [8, 20])
def test_holm_keeps_the_chance_of_any_claim_in_a_family(kind: str, images: int) -> None:
    random = np.random.default_rng(4)
    shared = DRAWS[kind](random, (1500, 1, images))
    found = paired_differences((shared + DRAWS[kind](random, (1500, 5, images))).reshape(-1, images))
    smallest = [min(holm(row)) for row in found.p.reshape(-1, 5).tolist()]
    assert np.mean(np.array(smallest) <= SIGNIFICANT) <= 0.06


def test_a_difference_that_is_there_is_found() -> None:
    found = paired_differences(np.random.default_rng(0).normal(0.5, 1, (2000, 40)))
    theirs = stats.ttest_1samp(np.random.default_rng(0).normal(0.5, 1, (2000, 40)), 0, axis=1).pvalue
    assert abs((found.p <= SIGNIFICANT).mean() - (theirs <= SIGNIFICANT).mean()) < 0.03


def test_equal_differences_have_the_p_of_their_number_and_none_at_all_has_one() -> None:
    found = paired_differences(np.array([[0.1] * 8, [0.0] * 8]))
    assert found.p == pytest.approx([2 / 2**8, 1])


def test_differences_of_zeros_and_ones_have_mcnemars_p_and_an_interval_with_a_width() -> None:
    differences = np.array([[1.0] * 9 + [-1] + [0] * 2, [0.0] * 12])
    found = paired_differences(differences, np.ones(2, bool))
    assert found.p[0] == pytest.approx(stats.binomtest(9, 10).pvalue)
    assert found.p[1] == 1
    assert (found.low[1], found.high[1]) == pytest.approx((-found.high[1], -found.low[1]))
    assert found.low[1] < -0.1
    up, down = 10 / 14, 2 / 14  # Bonett and Price: one added to either, two to the number
    half = stats.norm.ppf(0.975) * np.sqrt((up + down - (up - down) ** 2) / 14)
    assert (found.low[0], found.high[0]) == pytest.approx((up - down - half, min(up - down + half, 1)))


def test_so_few_images_can_show_nothing() -> None:
    def smallest_p(images: int) -> float:
        return sign_flip_p(np.ones((1, images)))[0]

    for comparisons in (1, 2, 5, 14):
        needed = images_needed(comparisons)
        assert comparisons * smallest_p(needed) <= SIGNIFICANT < comparisons * smallest_p(needed - 1)
    assert images_needed(1) == 6
    assert smallest_p(5) == paired_differences(np.arange(1.0, 6)[None]).p[0] == 1 / 16

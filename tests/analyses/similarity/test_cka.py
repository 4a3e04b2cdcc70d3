"""CKA with tokens of different images alone: against slow versions, and where the truth is known."""

import numpy as np
import pytest

from diffprobe.analyses.similarity.cka import Similarities, hsic, jackknifed, normalised
from diffprobe.statistics.intervals import Interval
from tests.reference.cka import cka_between_images, textbook_cka, textbook_debiased_cka


def made(images: int, tokens: int, widths: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Conditions that know partly the same, with means of many standard deviations."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(images, tokens, 5)) + random.normal(size=(images, 1, 5))
    return [
        common @ random.normal(size=(5, width)) + random.normal(size=(images, tokens, width)) + 30 * number
        for number, width in enumerate(widths)
    ]


def cka_of(*conditions: np.ndarray) -> np.ndarray:
    return normalised(hsic(conditions).unbiased)


@pytest.mark.parametrize(("images", "tokens"), [(6, 3), (5, 1), (7, 2)])
def test_it_is_that_of_all_pairs_triples_and_quadruples_of_images(images, tokens):
    conditions = made(images, tokens, (4, 9, 30))
    expected = [[cka_between_images(one, other) for other in conditions] for one in conditions]
    np.testing.assert_allclose(cka_of(*conditions), expected, rtol=0, atol=1e-9)


def test_activations_in_float32_give_it_to_1e_6():
    conditions = made(6, 4, (16, 40))
    stored = [values.astype(np.float32) for values in conditions]
    expected = cka_between_images(*(values.astype(float) for values in stored))
    assert cka_of(*stored)[0, 1] == pytest.approx(expected, abs=1e-6)


def test_with_one_token_an_image_it_is_the_textbooks():
    x, y = made(12, 1, (8, 50))
    assert cka_of(x, y)[0, 1] == pytest.approx(textbook_debiased_cka(x[:, 0], y[:, 0]), abs=1e-9)


def test_the_biased_estimate_is_the_textbooks_of_all_tokens():
    x, y = made(10, 4, (8, 50))
    found = normalised(hsic([x, y]).biased)[0, 1]
    assert found == pytest.approx(textbook_cka(x.reshape(40, -1), y.reshape(40, -1)), abs=1e-9)


@pytest.mark.parametrize("images", [5, 9])
def test_without_an_image_it_is_that_of_the_others(images):
    conditions = made(images, 3, (4, 9))
    found = hsic(conditions)
    for image in range(images):
        others = hsic([np.delete(values, image, 0) for values in conditions]).unbiased
        np.testing.assert_allclose(found.without[image], others, rtol=1e-7, atol=1e-9)


def test_it_is_1_of_what_is_turned_scaled_and_shifted():
    (x,) = made(10, 3, (8,))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    found = cka_of(x, 3 * x @ turn + 5)
    np.testing.assert_allclose(found, 1, atol=1e-9)


@pytest.mark.parametrize("width", [2, 30, 600])
@pytest.mark.parametrize("alike", [0.0, 2.0], ids=["independent tokens", "tokens of an image alike"])
def test_it_is_near_0_for_independent_noise_at_any_width(width, alike):
    random = np.random.default_rng(0)

    def noise() -> np.ndarray:
        of_image = alike * random.normal(size=(20, 1, width))
        return random.normal(size=(20, 6, width)) + of_image

    draws = [(noise(), noise()) for _ in range(40)]
    found = np.array([hsic(pair).unbiased for pair in draws])
    cka = normalised(found.mean(0))[0, 1]  # the parts are unbiased, their ratio nearly so
    spread = normalised(found)[:, 0, 1].std() / np.sqrt(len(draws))
    assert abs(cka) < 4 * spread + 0.005
    if width == 600:
        flat = [(x.reshape(120, -1), y.reshape(120, -1)) for x, y in draws]
        assert np.mean([textbook_cka(*pair) for pair in flat]) > 0.5  # the plain one: of samples fewer than channels
        if alike:  # and tokens taken as independent samples
            assert np.mean([textbook_debiased_cka(*pair) for pair in flat]) > 0.02
        assert abs(cka) < 0.02


def test_an_interval_needs_five_images_and_does_not_exceed_1():
    for images in (3, 4, 5):
        found = hsic(made(images, 3, (4, 9)))
        low, high = jackknifed(normalised(found.unbiased), np.moveaxis(normalised(found.without), 0, -1))
        assert np.isnan(normalised(found.unbiased)).all() == (images < 4)
        assert np.isnan(low).all() == (images < 5)
        assert not (high > 1).any()


def test_a_mean_of_pairs_has_the_interval_of_the_mean():
    found = hsic(made(12, 3, (4, 9, 9)))
    one = Similarities(normalised(found.unbiased), normalised(found.without), normalised(found.biased))
    mean = one.mean([(0, 1), (0, 2)])
    lows, highs = one.interval()
    assert mean.value == pytest.approx(one.value[0, 1:].mean())
    assert mean.low is not None
    assert mean.high is not None
    assert lows[0, 1:].min() < mean.low < mean.value < mean.high < highs[0, 1:].max()
    assert one.mean([(1, 1), (2, 2)]) == Interval(*(pytest.approx(1),) * 3)
    assert one.mean([]) == Interval(None, None, None)


def test_a_difference_of_means_is_paired_over_the_images():
    found = hsic(made(12, 3, (4, 9, 9)))
    one = Similarities(normalised(found.unbiased), normalised(found.without), normalised(found.biased))
    difference = one.mean([(0, 1)], [(0, 1)])
    assert difference == Interval(*(pytest.approx(0),) * 3)
    of_two = one.mean([(0, 1)], [(0, 2)])
    assert of_two.value == pytest.approx(one.value[0, 1] - one.value[0, 2])

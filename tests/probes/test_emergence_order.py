"""Differences of steps of emergence: which property comes first, on the same images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diffprobe.errors import UserError
from diffprobe.probes.emergence_order import ProbedLayer, compare_emergence
from diffprobe.probes.score_table import ScoreBlock, score_table
from diffprobe.statistics.differences import holm, step_differences

STEPS = 8
IMAGES = [f"image_{number}" for number in range(40)]


def rising(at: int, seed: int, images: int = 40, noise: float = 0.02) -> np.ndarray:
    """Scores [steps, images] whose mean comes to 0.95 of the last at step `at`."""
    random = np.random.default_rng(seed)
    steps = np.arange(STEPS)[:, None]
    return np.where(steps < at, 0.5 + 0.3 * steps / max(at, 1), 0.95) + noise * random.normal(size=(STEPS, images))


def table(metric: str = "dice", steps: int = STEPS, images: list[str] = IMAGES, **curves: np.ndarray) -> pd.DataFrame:
    """Test scores of properties at layer 'a'."""
    moments = [(step, 999.0 - 66 * step) for step in range(steps)]
    return score_table(
        [
            ScoreBlock("pocket", "a", name, "linear", "none", "test", metric, moments, images, values[:steps])
            for name, values in curves.items()
        ]
    )


def probed(*names: str) -> list[ProbedLayer]:
    return [ProbedLayer("pocket", "linear", name, "a") for name in names]


def test_the_earlier_property_comes_first_with_the_difference_of_their_steps() -> None:
    (row,) = compare_emergence(table(saliency=rising(6, 0), shape=rising(2, 1)), probed("saliency", "shape"))
    assert (row.property, row.step, row.other_property, row.other_step) == ("shape", 2, "saliency", 6)
    assert (row.difference, row.low, row.high, row.n, row.left_out) == (4, 4, 4, 40, 0)
    assert row.p == row.p_holm == pytest.approx(2 / 10_000)


def test_the_same_curves_are_not_told_apart() -> None:
    scores = rising(4, 0, noise=0.2)
    (row,) = compare_emergence(table(saliency=scores, shape=scores), probed("saliency", "shape"))
    assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_errors_come_down_where_scores_rise() -> None:
    error = table("mean_angle", normals=1.2 - rising(2, 1))
    both = pd.concat([table(saliency=rising(6, 0)), error], ignore_index=True)
    (row,) = compare_emergence(both, probed("saliency", "normals"))
    assert (row.property, row.difference) == ("normals", 4)


def test_every_pair_is_compared_and_adjusted_for_the_others() -> None:
    curves = {name: rising(at, at, noise=0.15) for name, at in (("depth", 3), ("saliency", 4), ("shape", 6))}
    rows = compare_emergence(table(**curves), probed(*curves))
    assert [(row.property, row.other_property) for row in rows] == [
        ("depth", "saliency"),
        ("depth", "shape"),
        ("saliency", "shape"),
    ]
    assert [row.p_holm for row in rows] == holm([row.p or 0.0 for row in rows])


def test_only_images_of_both_count() -> None:
    late = table(saliency=rising(6, 0))
    early = table(images=IMAGES[:30], shape=rising(2, 1)[:, :30])
    (row,) = compare_emergence(pd.concat([late, early], ignore_index=True), probed("saliency", "shape"))
    assert (row.n, row.left_out) == (30, 10)


def test_a_score_that_never_rises_and_a_single_step_have_no_place() -> None:
    assert not compare_emergence(table(saliency=rising(6, 0), shape=-rising(2, 1)), probed("saliency", "shape"))
    single = table(steps=1, saliency=rising(0, 0), shape=rising(0, 1))
    assert not compare_emergence(single, probed("saliency", "shape"))


def test_other_models_and_probes_are_not_mixed() -> None:
    both = pd.concat(
        [
            table(saliency=rising(6, 0), shape=rising(2, 1)).assign(probe=probe).astype({"probe": "category"})
            for probe in ("linear", "ridge")
        ],
        ignore_index=True,
    )
    each = [ProbedLayer("pocket", probe, name, "a") for probe in ("linear", "ridge") for name in ("saliency", "shape")]
    assert [row.probe for row in compare_emergence(both, each)] == ["linear", "ridge"]


def test_properties_of_different_steps_are_refused() -> None:
    other = table(steps=5, shape=rising(2, 1))
    with pytest.raises(UserError, match="different steps"):
        compare_emergence(
            pd.concat([table(saliency=rising(6, 0)), other], ignore_index=True), probed("saliency", "shape")
        )


def slowly(first: np.ndarray, second: np.ndarray, draws: int, seed: int) -> list[int]:
    """Differences of steps, one draw and one step after the other."""
    random, found = np.random.default_rng(seed), []
    for _ in range(draws):
        rows = random.integers(0, first.shape[1], first.shape[1])
        steps = [
            next((step for step in range(len(each)) if each[step, rows].mean() >= 0), len(each))
            for each in (first, second)
        ]
        found.append(steps[1] - steps[0])
    return found


def test_interval_and_p_are_those_of_images_drawn_again() -> None:
    curves = [rising(3, 0, 25, 0.3), rising(5, 1, 25, 0.3)]
    above = np.stack([values - 0.95 * values[-1] for values in curves])
    (found,) = step_differences(above, [(0, 1)])
    slow = np.array(slowly(*above, draws=4000, seed=7))
    assert found is not None
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=1)
    assert found.p == pytest.approx(2 * min((slow <= 0).mean(), (slow >= 0).mean()), abs=0.03)
    assert 0.001 < found.p < 1


def test_a_pair_without_a_common_image_has_no_difference() -> None:
    above = np.full((2, 3, 4), np.nan)
    above[0, :, :2] = above[1, :, 2:] = 1.0
    assert step_differences(above, [(0, 1)]) == [None]


def test_a_step_with_scores_of_few_images_does_not_count() -> None:
    above = np.full((2, 3, 12), -1.0)
    above[:, 2] = 1.0
    above[0, 0] = np.where(np.arange(12) < 3, 1.0, np.nan)  # three images alone would say step 0
    (found,) = step_differences(above, [(0, 1)])
    assert found is not None and (found.difference, found.low, found.high) == (0, 0, 0)  # noqa: PT018

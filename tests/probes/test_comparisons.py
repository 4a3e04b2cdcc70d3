from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.comparisons import ScoreDifference, ScoreKey, compare, compare_run, control_keys
from diffprobe.probes.summaries import summarise
from diffprobe.statistics.differences import holm
from tests.reference.score_rows import Score, table_of

FIRST, SECOND = ScoreKey("pocket", "a", 0, "linear"), ScoreKey("pocket", "b", 0, "linear")


def column(key: ScoreKey, values: list[float | None] | np.ndarray, **changes: object) -> list[Score]:
    """One score an image; `changes` for other properties and splits."""
    row = Score(key.model, key.layer, key.step, None, "depth", key.probe, key.control, "test", "", "spearman", None)
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return [replace(row, image=f"image_{n}", value=value, **changes) for n, value in enumerate(listed)]


def key_of(row: ScoreDifference) -> ScoreKey:
    return ScoreKey(row.model, row.layer, row.step, row.probe, row.control)


def other_of(row: ScoreDifference) -> ScoreKey:
    return ScoreKey(row.other_model, row.other_layer, row.other_step, row.other_probe, row.other_control)


def compared(scores: list[Score], pairs: list[tuple[ScoreKey, ScoreKey]], **options: int) -> list[ScoreDifference]:
    return compare(table_of(scores), pairs, property="depth", metric="spearman", family="layer", **options)  # type: ignore[arg-type]


def test_a_comparison_goes_by_the_differences_of_each_image() -> None:
    first, second = np.array([0.5, 0.7, 0.6, 0.9, 0.8, 0.4, 0.7]), np.array([0.4, 0.3, 0.5, 0.4, 0.5, 0.1, 0.5])
    (found,) = compared(column(FIRST, first) + column(SECOND, second), [(FIRST, SECOND)])
    differences = first - second
    flipped = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=7)]
    exact = np.mean([value >= differences.sum() - 1e-12 for value in flipped])
    low, high = stats.t.interval(0.95, 6, differences.mean(), stats.sem(differences))
    assert found.difference == pytest.approx(differences.mean())
    assert found.low <= low + 1e-12  # type: ignore[operator]
    assert found.high >= high - 1e-12  # type: ignore[operator]
    assert found.low > 0  # type: ignore[operator]
    assert found.p == found.p_holm == pytest.approx(exact) == 2 / 2**7
    assert (key_of(found), other_of(found), found.n, found.left_out) == (FIRST, SECOND, 7, 0)


def test_zeros_and_ones_are_compared_as_shares() -> None:
    (found,) = compared(column(FIRST, [1.0] * 9 + [0.0]) + column(SECOND, [1.0] * 9 + [0.0]), [(FIRST, SECOND)])
    assert (found.difference, found.p) == (0, 1)
    assert found.low < 0 < found.high  # type: ignore[operator]


def test_images_are_paired_by_name_and_not_by_order() -> None:
    values = np.linspace(0, 1, 10)
    (found,) = compared(column(FIRST, values + 0.1)[::-1] + column(SECOND, values), [(FIRST, SECOND)])
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_images_undefined_in_either_are_left_out_and_counted() -> None:
    scores = column(FIRST, [0.5, None, 0.7, 0.9]) + column(SECOND, [0.4, 0.1, None])
    (found,) = compared(scores, [(FIRST, SECOND)])
    assert (found.difference, found.n, found.left_out) == (pytest.approx(0.1), 1, 3)


def test_nothing_in_common_is_missing_and_no_part_of_the_family() -> None:
    third = replace(SECOND, layer="c")
    scores = column(FIRST, [0.5, 0.7]) + column(SECOND, [None, None]) + column(third, [0.1, 0.2])
    nothing, something = compared(scores, [(FIRST, SECOND), (FIRST, third)])
    assert (nothing.difference, nothing.p, nothing.p_holm, nothing.n, nothing.left_out) == (None, None, None, 0, 2)
    assert something.p_holm == something.p


def test_the_smallest_p_is_one_in_flips_plus_one_and_no_difference_has_one() -> None:
    values = np.linspace(0, 1, 30)
    scores = column(FIRST, values + 1) + column(SECOND, values)
    (apart,) = compared(scores, [(FIRST, SECOND)])
    (same,) = compared(scores, [(FIRST, FIRST)])
    assert apart.p == 1 / 10000
    assert same.p == 1.0


def test_a_null_difference_is_rejected_about_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    easy = rng.normal(size=40)  # what pairs have in common
    keys = [ScoreKey("pocket", f"layer {number}", 0, "linear") for number in range(400)]
    scores = [row for key in keys for row in column(key, easy + rng.normal(size=40))]
    pairs = list(zip(keys[::2], keys[1::2], strict=True))
    found = compared(scores, pairs)
    rejected = np.mean([row.p < 0.05 for row in found])  # type: ignore[operator]
    covered = np.mean([row.low <= 0 <= row.high for row in found])  # type: ignore[operator]
    assert 0.02 < rejected < 0.1
    assert 0.9 < covered < 0.98
    assert not any(row.p_holm < 0.05 for row in found)  # type: ignore[operator]


def test_a_run_is_compared_with_controls_layers_and_steps_at_its_best_layer() -> None:
    rng = np.random.default_rng(0)
    scores = []
    for split in ("validation", "test"):
        for layer, bonus in (("a", 0.3), ("b", 0.0)):
            for step in (0, 1):
                for control, loss in (("none", 0.0), ("permuted", 0.4)):
                    key = ScoreKey("pocket", layer, step, "ridge", control)
                    scores += column(key, bonus - loss + 0.2 * step + rng.normal(0, 0.1, 12), split=split)
        scores += column(ScoreKey("pocket", "pixels", 1, "ridge", "pixels"), rng.normal(0, 0.1, 12), split=split)
        scores += column(
            ScoreKey("pocket", "position", NO_STEP, "ridge", "position"), rng.normal(0, 0.1, 12), split=split
        )

    found = compare_run(table_of(scores), summarise(table_of(scores)))

    best = ScoreKey("pocket", "a", 1, "ridge")
    assert {key_of(row) for row in found} == {best}
    assert [(row.family, row.other_layer, row.other_step, row.other_control) for row in found] == [
        ("control", "a", 1, "permuted"),
        ("control", "pixels", 1, "pixels"),
        ("control", "position", NO_STEP, "position"),
        ("layer", "b", 1, "none"),
        ("step", "a", 0, "none"),
    ]
    controls = [row for row in found if row.family == "control"]
    assert [row.p_holm for row in controls] == holm([row.p for row in controls])  # type: ignore[misc]


def test_probes_and_models_are_compared_where_there_are_several() -> None:
    rng = np.random.default_rng(0)
    keys = [
        ScoreKey("pocket", "a", 0, "linear"),
        ScoreKey("pocket", "a", 0, "ridge"),
        ScoreKey("sd14", "b", 0, "linear"),
    ]
    scores = [
        row for split in ("validation", "test") for key in keys for row in column(key, rng.normal(size=8), split=split)
    ]
    found = compare_run(table_of(scores), summarise(table_of(scores)))
    assert [(row.family, key_of(row), other_of(row)) for row in found] == [
        ("probe", keys[0], keys[1]),
        ("model", keys[0], keys[2]),
    ]


def test_controls_of_another_layer_step_or_probe_do_not_count() -> None:
    real = ScoreKey("pocket", "a", 3, "linear")
    permuted = replace(real, control="permuted")
    foreign = [replace(permuted, step=2), replace(permuted, layer="b"), replace(permuted, probe="mlp")]
    assert control_keys([real, *foreign, permuted], real) == {"permuted": permuted}
    assert control_keys(foreign, real) == {}


def test_rows_of_two_runs_are_refused() -> None:
    with pytest.raises(UserError, match="several runs"):
        compared(column(FIRST, [0.1]) * 2 + column(SECOND, [0.1]), [(FIRST, SECOND)])


def test_a_key_without_scores_is_named() -> None:
    with pytest.raises(UserError, match="no scores of b at step 1"):
        compared(column(FIRST, [0.1]), [(FIRST, SECOND)])

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from diffprobe.properties.binary import dice, mask_areas
from diffprobe.properties.continuous import average_ranks, pearson, rank_maps, rmse, spearman
from diffprobe.properties.tokens import Grid, PooledTarget, pool_target, token_means
from tests.reference.scores import SCORES


def background_dice(prediction, target) -> torch.Tensor:
    return mask_areas(prediction, target).scores()["dice_background"]


FUNCTIONS = {
    "dice": dice,
    "dice_background": background_dice,
    "spearman": spearman,
    "pearson": pearson,
    "rmse": rmse,
}
BINARY = ("dice", "dice_background")


def random_case(metric: str, seed: int, grid: Grid, size: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Prediction [2, 3, h, w] and target [3, H, W]; small integers half of the time, so that there are many ties."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, 3, *grid, generator=generator), torch.randn(3, *size, generator=generator)
    if metric in BINARY:
        return (prediction > 0.4).float(), (target > 0.4).float()
    return (prediction.round(), (2 * target).round()) if seed % 2 else (prediction, target)


@pytest.mark.parametrize("metric", FUNCTIONS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("grid", "size"), [((4, 4), (16, 16)), ((2, 3), (8, 9)), ((8, 8), (8, 8)), ((3, 5), (16, 12))])
def test_scores_equal_the_full_resolution_reference(metric: str, seed: int, grid: Grid, size: Grid) -> None:
    prediction, target = random_case(metric, seed, grid, size)
    found = FUNCTIONS[metric](prediction, target)
    expected = [[SCORES[metric](p.numpy(), t.numpy()) for p, t in zip(row, target, strict=True)] for row in prediction]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, (2, 2), elements=st.integers(-2, 2).map(float)),
    arrays.arrays(np.float32, (6, 4), elements=st.integers(-2, 2).map(float)),
)
def test_any_small_maps_score_as_the_reference_does(prediction: np.ndarray, target: np.ndarray) -> None:
    for metric, function in FUNCTIONS.items():
        first, second = (prediction > 0, target > 0) if metric in BINARY else (prediction, target)
        first, second = first.astype(np.float32), second.astype(np.float32)
        found = function(torch.from_numpy(first)[None], torch.from_numpy(second)[None]).item()
        np.testing.assert_allclose(found, SCORES[metric](first, second), atol=1e-6)


@settings(deadline=None)
@given(arrays.arrays(np.float64, (3, 7), elements=st.integers(0, 4).map(float)))
def test_ranks_share_ties_as_scipy_does(values: np.ndarray) -> None:
    np.testing.assert_array_equal(average_ranks(torch.from_numpy(values)), stats.rankdata(values, axis=-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [50, 2**15])
def test_ranks_of_any_precision_and_length_are_those_of_scipy(dtype: torch.dtype, count: int) -> None:
    values = torch.randn(3, count, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[1] = (2 * values[1]).round()
    values[2, :20], values[2, 20:40] = 0.0, -0.0
    values[2, 40:42] = torch.tensor([float("inf"), -float("inf")])
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values.double().numpy(), axis=-1))


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
def test_correlation_with_a_constant_is_undefined_only_for_that_image(metric: str) -> None:
    prediction, target = random_case(metric, 0, (4, 4), (8, 8))
    prediction[1, 0] = 0.1
    target[2] = 0.7
    defined = ~FUNCTIONS[metric](prediction, target).isnan()
    assert defined.tolist() == [[True, True, False], [False, True, False]]


@pytest.mark.parametrize("metric", ["spearman", "pearson", "rmse"])
def test_a_prediction_with_nan_has_no_score(metric: str) -> None:
    prediction, target = random_case(metric, 0, (4, 4), (8, 8))
    prediction[0, 1, 2, 2] = float("nan")
    assert FUNCTIONS[metric](prediction, target).isnan().tolist() == [[False, True, False], [False, False, False]]


def test_empty_masks() -> None:
    empty, some = torch.zeros(1, 2, 2), torch.ones(1, 4, 4)
    assert dice(empty, torch.zeros(1, 4, 4)).item() == 1
    assert dice(empty, some).item() == 0
    assert dice(torch.ones(1, 2, 2), torch.zeros(1, 4, 4)).item() == 0
    assert background_dice(torch.ones(1, 2, 2), some).item() == 1


@pytest.mark.parametrize("metric", FUNCTIONS)
def test_a_pooled_target_gives_what_the_target_gives(metric: str) -> None:
    prediction, target = random_case(metric, 1, (4, 4), (16, 16))
    pooled: PooledTarget = pool_target(rank_maps(target) if metric == "spearman" else target, (4, 4))
    torch.testing.assert_close(FUNCTIONS[metric](prediction, pooled), FUNCTIONS[metric](prediction, target))


def test_a_size_that_is_no_multiple_is_upsampled_as_torch_does() -> None:
    prediction, target = random_case("rmse", 0, (3, 3), (8, 10))
    upsampled = F.interpolate(prediction, (8, 10), mode="nearest")
    torch.testing.assert_close(rmse(prediction, target), rmse(upsampled, target))


def test_large_offsets_do_not_cost_precision() -> None:
    prediction, target = random_case("pearson", 0, (4, 4), (16, 16))
    shifted = pearson(prediction.double() + 1e5, target.double() - 1e5)
    torch.testing.assert_close(shifted, pearson(prediction, target), atol=1e-8, rtol=0)


def test_token_means_are_patch_means() -> None:
    maps = torch.arange(32.0).view(2, 4, 4)
    assert token_means(maps, (2, 2))[0].tolist() == [[2.5, 4.5], [10.5, 12.5]]

"""Masks at the resolution of activations, and the means over them."""

from __future__ import annotations

import pytest
import torch

from diffprobe.prototypes.pooling import MaskResizing, masked_means, resize_masks

MASK = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]]).bool()
FEATURES = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 0.0], [0.0, -10.0]]])


def test_plain_bilinear_resizing_equals_the_example_worked_by_hand() -> None:
    weights = resize_masks(MASK, (2, 2), MaskResizing(antialias=False))
    assert weights.tolist() == [[[1.0, 0.25], [0.5, 0.0]]]


def test_antialiased_resizing_equals_the_example_worked_by_hand() -> None:
    weights = resize_masks(MASK, (2, 2), MaskResizing(antialias=True))
    expected = torch.tensor([[0.918367, 0.326531], [0.489796, 0.081633]])
    assert torch.allclose(weights[0], expected, atol=5e-7)


def test_soft_and_hard_means_equal_the_example_worked_by_hand() -> None:
    soft = masked_means(FEATURES, resize_masks(MASK, (2, 2), MaskResizing(antialias=False)))
    hard = masked_means(FEATURES, resize_masks(MASK, (2, 2), MaskResizing(hard=True, antialias=False)))
    assert soft[0].tolist() == pytest.approx([1.714286, 5.714286], abs=5e-7)
    assert hard[0].tolist() == [2.0, 5.0]


def test_a_mean_over_everything_is_the_mean_of_the_activation_whatever_the_area() -> None:
    activation = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, half = torch.ones(1, 64, 64).bool(), torch.zeros(1, 64, 64).bool()
    half[:, :, :32] = True
    assert torch.allclose(
        masked_means(activation, resize_masks(whole, (8, 8), MaskResizing()))[0], activation.mean((1, 2))
    )
    left = masked_means(activation, resize_masks(half, (8, 8), MaskResizing(hard=True)))[0]
    assert torch.allclose(left, activation[:, :, :4].mean((1, 2)), atol=1e-6)


def test_an_object_that_no_cell_belongs_to_has_no_mean() -> None:
    small = torch.zeros(2, 64, 64).bool()
    small[0, 0, 0] = True
    small[1, :32, :32] = True
    found = masked_means(FEATURES, resize_masks(small, (2, 2), MaskResizing(hard=True)))
    assert found[0].isnan().all()
    assert found[1].tolist() == [1.0, 10.0]
    soft = masked_means(FEATURES, resize_masks(small, (2, 2), MaskResizing()))
    assert soft.isfinite().all()


def test_half_precision_activations_are_averaged_in_single_precision() -> None:
    activation = torch.full((1, 64, 64), 1000.0, dtype=torch.float16)
    assert masked_means(activation, torch.ones(1, 64, 64)).tolist() == [[1000.0]]


@pytest.mark.parametrize("allowed", ["highest", "medium"])
def test_an_offset_costs_no_more_than_rounding_the_mean_itself(allowed: str) -> None:
    """Also where a run has allowed its network products in less than float32."""
    draw = torch.Generator().manual_seed(0)
    activation = torch.randn(8, 64, 64, generator=draw) + 1000
    weights = (torch.rand(5, 64, 64, generator=draw) > 0.3).float()
    flat = weights.flatten(1).double()
    expected = flat @ activation.flatten(1).double().T / flat.sum(1, keepdim=True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        found = masked_means(activation, weights)
    finally:
        torch.set_float32_matmul_precision(before)
    assert (found - expected).abs().max() <= 2**-15  # half a unit in the last place of 1000 in float32

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffprobe.errors import UserError
from diffprobe.probes.adam import edge_weights, smoothness
from tests.reference.separate_probes import pixel_smoothness


@pytest.mark.parametrize("grid", [(4, 4), (2, 8), (8, 8), (3, 5), (1, 4)])
def test_the_penalty_of_tokens_is_that_of_the_pixels_of_the_upsampled_map(grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 3 * torch.rand(2, 3, 8, 8, generator=generator)
    maps = torch.randn(2, *grid, generator=generator, requires_grad=True)
    found = smoothness(maps, edge_weights(images, grid))
    expected = pixel_smoothness(F.interpolate(maps[:, None], (8, 8), mode="nearest")[:, 0], images)
    assert expected.min() > 0.01
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), maps)[0] for value in (found, expected)))


def test_a_step_costs_less_where_the_image_has_an_edge() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    step, elsewhere = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    step[..., 2:] = 1
    elsewhere[..., 1:] = 1
    edges = edge_weights(image, (4, 4))
    torch.testing.assert_close(smoothness(step, edges), smoothness(elsewhere, edges) * torch.tensor(-1.0).exp())
    assert smoothness(torch.ones(1, 4, 4), edges).tolist() == [0]


def test_layers_and_steps_go_through_together() -> None:
    images, maps = torch.rand(3, 3, 8, 8), torch.randn(2, 5, 3, 4, 4)
    edges = edge_weights(images, (4, 4))
    torch.testing.assert_close(smoothness(maps, edges)[1, 4], smoothness(maps[1, 4], edges))


def test_images_smaller_than_the_grid_are_refused() -> None:
    with pytest.raises(UserError, match=r"maps of 4x8 tokens .* are 4x4"):
        edge_weights(torch.rand(1, 3, 4, 4), (4, 8))

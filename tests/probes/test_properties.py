from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.errors import UserError
from diffprobe.properties import PAPERS, PROPERTIES, Standardisation, property_named
from diffprobe.properties.tokens import token_means


def outputs(channels: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, channels, 4, 4, generator=generator, requires_grad=True)


def upsampled(values: Tensor) -> Tensor:
    return F.interpolate(values, (16, 16), mode="nearest")


def assert_same_value_and_gradient(values: Tensor, first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second)
    assert_same_gradient(values, first, second)


def assert_same_gradient(values: Tensor, first: Tensor, second: Tensor) -> None:
    gradients = [torch.autograd.grad(loss, values)[0] for loss in (first, second)]
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients)


def test_saliency_loss_is_the_cross_entropy_over_the_pixels_of_the_image() -> None:
    logits = outputs(2)
    labels = (torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    saliency = property_named("saliency")
    ours = saliency.loss(logits, saliency.planes(saliency.target(labels), (4, 4))).mean()
    assert_same_value_and_gradient(logits, ours, F.cross_entropy(upsampled(logits), labels.long()))


@pytest.mark.parametrize("name", ["depth", "shading"])
def test_huber_is_that_over_pixels_where_targets_are_constant_per_token(name: str) -> None:
    values = outputs(1)
    tokens = 2 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert (values[:, 0] - tokens).abs().gt(1).any()
    ours = PROPERTIES[name].loss(values, tokens[:, None]).mean()
    assert_same_value_and_gradient(
        values, ours, F.huber_loss(upsampled(values)[:, 0], upsampled(tokens[:, None])[:, 0])
    )


def test_in_the_quadratic_region_huber_has_the_gradient_of_that_over_pixels() -> None:
    values = outputs(1)
    noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    target = upsampled(values.detach())[:, 0] + 0.1 * noise
    ours = PROPERTIES["depth"].loss(values, token_means(target, (4, 4))[:, None]).mean()
    assert_same_gradient(values, ours, F.huber_loss(upsampled(values)[:, 0], target))


@pytest.mark.parametrize("name", PROPERTIES)
def test_losses_broadcast_over_layers_and_steps_and_stay_per_image(name: str) -> None:
    item = PROPERTIES[name]
    many = torch.randn(2, 5, 3, item.outputs, 4, 4)
    target = torch.rand(3, item.regressed + (item.kind == "vector"), 4, 4)
    losses = item.loss(many, target)
    assert losses.shape == (2, 5, 3)
    torch.testing.assert_close(losses[1, 4, 2], item.loss(many[1, 4, 2], target[2]))


def test_saliency_target_is_any_label_above_zero() -> None:
    assert property_named("saliency").target(torch.tensor([[[0, 1], [3, -1]]])).tolist() == [[[0, 1], [1, 0]]]


def test_saliency_decodes_to_the_probability_of_foreground() -> None:
    logits = outputs(2).detach()
    saliency = property_named("saliency")
    found = saliency.decode(logits, saliency.standardisation(torch.rand(2, 4, 4)))
    torch.testing.assert_close(found, logits.softmax(1)[:, 1])


def test_depth_decodes_back_to_label_units() -> None:
    target = 7 + 3 * torch.randn(4, 8, 8)
    depth = property_named("depth")
    standardisation = depth.standardisation(target)
    standard = standardisation.apply(target)
    assert abs(standard.mean().item()) < 1e-5
    assert abs(standard.std(correction=0).item() - 1) < 1e-5
    decoded = depth.decode(standard[:, None], standardisation)
    torch.testing.assert_close(depth.in_label_units(decoded, standardisation), target)


def test_constant_training_labels_are_refused() -> None:
    with pytest.raises(UserError, match="shading"):
        property_named("shading").standardisation(torch.ones(3, 4, 4))


def test_masks_are_not_standardised() -> None:
    assert property_named("saliency").standardisation(torch.ones(3, 4, 4)) == Standardisation(0.0, 1.0)


def test_the_papers_learning_rates() -> None:
    assert {name: PROPERTIES[name].learning_rate for name in PAPERS} == {
        "saliency": 1e-3,
        "depth": 1e-3,
        "shading": 1e-2,
    }


def test_an_unknown_property_lists_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'dept'.*depth"):
        property_named("dept")

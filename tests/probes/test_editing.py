"""Edits of activations: the closed form is the smallest change that satisfies the probe, and every token is alone."""

from __future__ import annotations

from math import log

import pytest
import torch

from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.editing import (
    bounds,
    descend,
    minimum_norm,
    probe_at,
    random_edit,
    readout_at,
    steer,
    token_lengths,
)
from diffprobe.properties import property_named

LAYER = "a.layer"


@pytest.fixture
def bank() -> ProbeBank:
    bank = ProbeBank({LAYER: 6}, [0, 3], ["saliency", "depth"], bias=True)
    bank.thresholds["saliency"][LAYER] = [0.5, 0.3]
    return bank


@pytest.fixture
def activation() -> torch.Tensor:
    return torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(1))


def masks() -> torch.Tensor:
    return (torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.6).float()


def test_a_reading_is_what_the_probe_says_at_its_own_step(bank, activation):
    with torch.no_grad():
        said = bank(LAYER, activation[None].expand(2, -1, -1, -1, -1))
    for step, place in ((0, 0), (3, 1)):
        odds = said["saliency"][place, :, 1] - said["saliency"][place, :, 0]
        torch.testing.assert_close(readout_at(bank, "saliency", LAYER, step).of(activation), odds)
        torch.testing.assert_close(readout_at(bank, "depth", LAYER, step).of(activation), said["depth"][place, :, 0])
        torch.testing.assert_close(probe_at(bank, "saliency", LAYER, step)(activation), said["saliency"][place])
    assert readout_at(bank, "saliency", LAYER, 3).level == pytest.approx(log(0.3 / 0.7))


def test_after_a_closed_form_edit_the_probe_reports_the_mask_with_the_margin(bank, activation):
    reading = readout_at(bank, "saliency", LAYER, 3)
    target = masks()
    for covariance in (None, torch.diag(torch.arange(1.0, 7.0))):
        edited = minimum_norm(activation, reading, *bounds(target, reading.level, 1.5, binary=True), covariance)
        beyond = (reading.of(edited) - reading.level) * (2 * target - 1)
        assert beyond.min() == pytest.approx(1.5, abs=1e-4)
        within = (reading.of(activation) - reading.level) * (2 * target - 1) >= 1.5
        assert within.any()
        torch.testing.assert_close(edited.movedim(1, -1)[within], activation.movedim(1, -1)[within])


def test_no_change_that_satisfies_the_probe_is_smaller(bank, activation):
    reading = readout_at(bank, "depth", LAYER, 0)
    target = torch.full((2, 4, 4), 0.7)
    root = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    for covariance in (torch.eye(6), root @ root.T):
        metric = torch.linalg.inv(covariance)

        def length(change: torch.Tensor, metric: torch.Tensor = metric) -> torch.Tensor:
            return torch.einsum("bchw,cd,bdhw->bhw", change, metric, change)

        change = minimum_norm(activation, reading, target, target, covariance) - activation
        torch.testing.assert_close(reading.of(activation + change), target, atol=1e-4, rtol=1e-4)
        for seed in range(5):
            aside = torch.randn(change.shape, generator=torch.Generator().manual_seed(seed))
            along = reading.direction
            aside = (
                aside - torch.einsum("c,bchw->bhw", along, aside)[:, None] * (along / along.dot(along))[:, None, None]
            )
            assert (length(change + 0.3 * aside) > length(change)).all()


def test_the_euclidean_edit_is_that_of_a_covariance_of_one(bank, activation):
    reading = readout_at(bank, "depth", LAYER, 0)
    target = torch.zeros(2, 4, 4)
    torch.testing.assert_close(
        minimum_norm(activation, reading, target, target),
        minimum_norm(activation, reading, target, target, torch.eye(6)),
    )


def test_steering_moves_every_token_by_its_share_of_the_length_of_tokens(bank, activation):
    reading = readout_at(bank, "saliency", LAYER, 0)
    towards = 2 * masks() - 1
    edited = steer(activation, reading, towards, 0.5)
    length = activation.square().sum(1).mean((1, 2)).sqrt()
    torch.testing.assert_close((edited - activation).norm(dim=1), (0.5 * length)[:, None, None].expand(-1, 4, 4))
    assert (((reading.of(edited) - reading.of(activation)) * towards) > 0).all()


def test_descent_ends_where_plain_adam_on_each_image_alone_ends(bank, activation):
    probe, loss = probe_at(bank, "saliency", LAYER, 0), property_named("saliency").loss
    target = masks()[:, None]
    edited = descend(activation, probe, loss, target, learning_rate=0.05, iterations=20)
    assert (loss(probe(edited), target) < loss(probe(activation), target)).all()
    for row in range(2):
        alone = activation[row : row + 1].clone().requires_grad_()
        optimizer = torch.optim.Adam([alone], lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            loss(probe(alone), target[row : row + 1]).mean().backward()
            optimizer.step()
        torch.testing.assert_close(edited[row : row + 1], alone.detach(), atol=1e-5, rtol=1e-5)


def test_descent_works_inside_no_grad_and_for_probes_that_are_not_linear(activation):
    bank = ProbeBank({LAYER: 6}, [0], ["depth"], head="mlp", bias=True)
    probe, loss = probe_at(bank, "depth", LAYER, 0), property_named("depth").loss
    target = torch.full((2, 4, 4), 0.5)
    with torch.no_grad():
        edited = descend(activation, probe, loss, target, learning_rate=0.05, iterations=30)
    assert (loss(probe(edited), target) < 0.5 * loss(probe(activation), target)).all()
    assert not edited.requires_grad
    with pytest.raises(TypeError, match="mlp"):
        readout_at(bank, "depth", LAYER, 0)


def test_the_random_control_moves_every_token_as_far(activation):
    edited = activation.clone()
    edited[:, :2, 1:] += 1.0
    noise = torch.randn(activation.shape, generator=torch.Generator().manual_seed(4))
    control = random_edit(activation, token_lengths(activation, edited), noise)
    torch.testing.assert_close((control - activation).norm(dim=1), (edited - activation).norm(dim=1))
    assert not torch.allclose(control, edited)

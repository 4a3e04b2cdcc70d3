"""Muon: the library's on matrices, the same of a convolution's weight as a matrix, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import nn

from diffprobe.pocket.training.fit import Muon


def test_linear_layers_train_as_with_the_library():
    ours, theirs = _two(lambda: nn.Sequential(nn.Linear(12, 7, bias=False), nn.Linear(7, 12, bias=False)))
    reference = torch.optim.Muon(
        theirs.parameters(), lr=0.1, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    optimizer = Muon(ours.parameters(), [nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.1)
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    inputs = torch.randn(20, 12)
    for _ in range(3):
        _train(ours, inputs, optimizer)
        _train(theirs, inputs, reference)
    for mine, other, old in zip(ours.parameters(), theirs.parameters(), before, strict=True):
        moved, apart = (mine - old).norm(), (mine - other).norm()
        assert apart < 0.03 * moved  # bf16 products, summed in another order


def test_a_convolution_trains_as_the_linear_layer_that_it_is():
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 8, 2, bias=False)
    linear = nn.Linear(12, 8, bias=False)
    linear.weight.data = convolution.weight.data.permute(0, 2, 3, 1).flatten(1).clone()
    before = linear.weight.detach().clone()
    images = torch.randn(10, 3, 2, 2)
    flat = images.permute(0, 2, 3, 1).flatten(1)
    for network, inputs in ((convolution, images), (linear, flat)):
        optimizer = Muon(network.parameters(), [nn.Parameter(torch.zeros(1))], lr=0.01, weight_decay=0.0)
        for _ in range(3):
            _train(network, inputs, optimizer)
    apart = convolution.weight.permute(0, 2, 3, 1).flatten(1) - linear.weight
    assert apart.norm() < 0.03 * (linear.weight - before).norm()


def test_the_rest_trains_with_adamw_under_the_schedule_of_the_outer_groups():
    mine, other = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    optimizer = Muon([nn.Parameter(torch.eye(2))], [mine], lr=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW([other], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for rate in (0.01, 0.002):
        optimizer.param_groups[1]["lr"] = reference.param_groups[0]["lr"] = rate
        for parameter, chosen in ((mine, optimizer), (other, reference)):
            parameter.grad = torch.arange(4.0)
            chosen.step()
    assert torch.allclose(mine, other)


def test_a_saved_state_goes_on_as_if_never_interrupted():
    whole, halves = _two(lambda: nn.Sequential(nn.Linear(6, 6)))
    inputs = torch.randn(5, 6)
    first = _optimizer(whole)
    second = _optimizer(halves)
    for _ in range(2):
        _train(whole, inputs, first)
        _train(halves, inputs, second)
    resumed = _optimizer(halves)
    resumed.load_state_dict(second.state_dict())
    _train(whole, inputs, first)
    _train(halves, inputs, resumed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def _optimizer(network: nn.Sequential) -> Muon:
    return Muon([network[0].weight], [network[0].bias], lr=0.01, weight_decay=0.01)


def _two(build):
    torch.manual_seed(0)
    first = build()
    second = build()
    second.load_state_dict(first.state_dict())
    return first, second


def _train(network: nn.Module, inputs: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (network(inputs) - 1).square().mean().backward()
    optimizer.step()

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.module import Batch, ProbeBankModule
from diffprobe.probes.targets import token_targets
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise
from tests.reference.separate_probes import train_alone

CHANNELS = {SHALLOW: 6, DEEP: 5}
PROPERTIES = ["saliency", "depth", "shading"]
ROWS = [[0, 1, 2], [3, 4, 5], [1, 3, 0]] * 4


def as_linear(bank: ProbeBank, name: str, layer: str, index: int) -> nn.Linear:
    weight, bias = bank.weight(name, layer)[index].detach(), bank.bias_of(name, layer)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data.copy_(weight)
    if bias is not None:
        linear.bias.data.copy_(bias[index].detach())
    return linear


@pytest.mark.parametrize("bias", [False, True])
def test_probes_trained_together_are_probes_trained_alone(bias: bool) -> None:
    activations, targets = noise(6), label_maps(6)
    targets["depth"] = targets["depth"] - 5
    bank = ProbeBank(CHANNELS, activations.steps, PROPERTIES, bias=bias)
    alone = {
        (name, layer, step): as_linear(bank, name, layer, step)
        for name in PROPERTIES
        for layer in CHANNELS
        for step in (0, 1)
    }
    tokens = {name: token_targets(maps, [(8, 8), (4, 4)]) for name, maps in targets.items()}
    module = ProbeBankModule(bank, images=6)
    optimiser = module.configure_optimizers()
    for rows in ROWS:
        batch = Batch(
            torch.tensor(rows),
            {layer: values[:, rows] for layer, values in activations.values.items()},
            {name: {grid: maps[rows] for grid, maps in grids.items()} for name, grids in tokens.items()},
        )
        optimiser.zero_grad()
        module.training_step(batch).backward()
        optimiser.step()
    for (name, layer, step), probe in alone.items():
        batches = [(activations.values[layer][step][rows], targets[name][rows]) for rows in ROWS]
        rate = {"saliency": 1e-3, "depth": 1e-3, "shading": 1e-2}[name]
        start = probe.weight.detach().clone()
        train_alone(probe, batches, learning_rate=rate, per_pixel=name == "saliency")
        assert (probe.weight - start).abs().max() > 5 * rate
        torch.testing.assert_close(bank.weight(name, layer)[step], probe.weight, atol=2e-5, rtol=1e-4)
        if bias:
            torch.testing.assert_close(bank.bias_of(name, layer)[step], probe.bias, atol=2e-5, rtol=1e-4)  # type: ignore[index]


def test_every_probe_sees_the_gradient_it_would_see_alone() -> None:
    activations, targets = noise(6), label_maps(6)
    bank = ProbeBank(CHANNELS, activations.steps, ["saliency"])
    tokens = token_targets(targets["saliency"], [(8, 8), (4, 4)])
    ProbeBankModule(bank, images=6).training_step(
        Batch(torch.arange(6), activations.values, {"saliency": tokens})
    ).backward()
    for layer in CHANNELS:
        for step in (0, 1):
            probe = as_linear(bank, "saliency", layer, step)
            logits = probe(activations.values[layer][step].movedim(1, -1)).movedim(-1, 1)
            pixels = nn.functional.interpolate(logits, (16, 16), mode="nearest")
            nn.functional.cross_entropy(pixels, targets["saliency"].long()).backward()
            gradient = bank.weight("saliency", layer).grad
            assert gradient is not None
            torch.testing.assert_close(gradient[step], probe.weight.grad)


@pytest.mark.parametrize("bias", [False, True])
def test_forward_is_one_linear_map_per_step(bias: bool) -> None:
    bank = ProbeBank(CHANNELS, [0, 1], PROPERTIES, bias=bias)
    activation = torch.randn(2, 3, 5, 4, 4)
    found = bank(DEEP, activation)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "saliency": (2, 3, 2, 4, 4),
        "depth": (2, 3, 1, 4, 4),
        "shading": (2, 3, 1, 4, 4),
    }
    for name, value in found.items():
        for step in range(2):
            expected = as_linear(bank, name, DEEP, step)(activation[step].movedim(1, -1)).movedim(-1, 1)
            torch.testing.assert_close(value[step], expected)


def test_half_precision_activations_are_accepted() -> None:
    bank = ProbeBank(CHANNELS, [0], ["depth"])
    assert bank(SHALLOW, torch.randn(1, 2, 6, 8, 8).half())["depth"].dtype == torch.float32


def test_a_probe_starts_the_same_whatever_else_is_in_the_bank() -> None:
    whole = ProbeBank(CHANNELS, [0, 1, 2], PROPERTIES, seed=4)
    part = ProbeBank({DEEP: 5}, [2], ["shading"], seed=4)
    assert torch.equal(part.weight("shading", DEEP)[0], whole.weight("shading", DEEP)[2])


def test_the_start_depends_on_the_seed_and_stays_within_that_of_a_linear_layer() -> None:
    first, second = (ProbeBank({DEEP: 400}, [0], ["saliency"], seed=seed).weight("saliency", DEEP) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert 0.9 / 20 < first.abs().max().item() <= 1 / 20
    assert abs(first.mean().item()) < 0.01


def test_an_unknown_property_is_refused() -> None:
    with pytest.raises(UserError, match="saliency"):
        ProbeBank(CHANNELS, [0], ["salience"])

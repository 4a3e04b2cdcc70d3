from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from diffprobe.errors import UserError
from diffprobe.probes.adam import Collate, ProbeBankModule, edge_weights
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from tests.probes.planted import DEEP, SHALLOW, label_maps, noise, token_targets
from tests.reference.separate_probes import train_alone

CHANNELS = {SHALLOW: 6, DEEP: 5}
PROPERTIES = ["saliency", "depth", "shading"]
ROWS = [[0, 1, 2], [3, 4, 5], [1, 3, 0]] * 4


def as_module(bank: ProbeBank, name: str, layer: str, index: int) -> nn.Module:
    """One probe made of torch's layers, which takes channels last."""
    head = bank.head_of(name, layer)
    layers = [nn.Linear(weight.shape[2], weight.shape[1], bias=bank.bias) for weight in head.maps]
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1]) if bank.head == "mlp" else layers[0]
    for mine, theirs in zip(module.parameters(), head.parameters(), strict=True):
        mine.data.copy_(theirs[index].detach())
    return module


RECIPES = {
    "linear": ProbeConfig(),
    "bias": ProbeConfig(bias=True),
    "mlp": ProbeConfig(head="mlp"),
    "mlp with biases": ProbeConfig(head="mlp", bias=True),
    "l1": ProbeConfig(l1=0.05, bias=True),
    "l1 of an mlp": ProbeConfig(head="mlp", l1=0.05),
    "smoothness": ProbeConfig(smoothness=5),
    "all": ProbeConfig(head="mlp", bias=True, l1=0.05, smoothness=5),
}


def trained_together(probe_config: ProbeConfig, properties: list[str] = PROPERTIES) -> tuple[ProbeBank, dict]:
    """The bank after training on batches of `ROWS`, and every probe as it was before."""
    activations, targets, images = noise(6), label_maps(6), pictures(6)
    targets["depth"] = targets["depth"] - 5
    bank = ProbeBank(CHANNELS, activations.steps, properties, head=probe_config.head, bias=probe_config.bias)
    alone = {
        (name, layer, step): as_module(bank, name, layer, step)
        for name in properties
        for layer in CHANNELS
        for step in (0, 1)
    }
    tokens = {name: token_targets(targets[name], [(8, 8), (4, 4)]) for name in properties}
    edges = {grid: edge_weights(images, grid) for grid in [(8, 8), (4, 4)]} if probe_config.smoothness else {}
    collate = Collate(activations.values, tokens, edges)
    module = ProbeBankModule(bank, images=6, probe_config=probe_config)
    optimiser = module.configure_optimizers()
    for rows in ROWS:
        optimiser.zero_grad()
        module.training_step(collate(rows)).backward()
        optimiser.step()
    return bank, alone


def pictures(count: int) -> torch.Tensor:
    return 2 * torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("kind", RECIPES)
def test_probes_trained_together_are_probes_trained_alone(kind: str) -> None:
    probe_config, activations, targets, images = RECIPES[kind], noise(6), label_maps(6), pictures(6)
    targets["depth"] = targets["depth"] - 5
    bank, alone = trained_together(probe_config)
    for (name, layer, step), probe in alone.items():
        rate = {"saliency": 1e-3, "depth": 1e-3, "shading": 1e-2}[name]
        start = [parameter.detach().clone() for parameter in probe.parameters()]
        train_alone(
            probe,
            [(activations.values[layer][step][rows], targets[name][rows]) for rows in ROWS],
            learning_rate=rate,
            per_pixel=name == "saliency",
            l1=probe_config.l1,
            smoothness=probe_config.smoothness,
            images=[images[rows] for rows in ROWS] if probe_config.smoothness else None,
        )
        assert (next(probe.parameters()) - start[0]).abs().max() > 3 * rate
        for joint, separate in zip(bank.head_of(name, layer).parameters(), probe.parameters(), strict=True):
            torch.testing.assert_close(joint[step], separate, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mlp", "l1", "smoothness"])
def test_heads_and_penalties_do_not_couple_probes(kind: str) -> None:
    whole, part = (trained_together(RECIPES[kind], names)[0] for names in (PROPERTIES, ["shading"]))
    for layer in CHANNELS:
        for one, other in zip(
            part.head_of("shading", layer).parameters(), whole.head_of("shading", layer).parameters(), strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["l1", "smoothness"])
def test_penalties_change_every_probe(kind: str) -> None:
    probe_config = RECIPES[kind]
    penalised, plain = trained_together(probe_config)[0], trained_together(replace(probe_config, l1=0, smoothness=0))[0]
    for name in PROPERTIES:
        for layer in CHANNELS:
            difference = (penalised.weight(name, layer) - plain.weight(name, layer)).abs().flatten(1).amax(1)
            assert difference.min() > 1e-4


def test_every_probe_sees_the_gradient_it_would_see_alone() -> None:
    activations, targets = noise(6), label_maps(6)
    bank = ProbeBank(CHANNELS, activations.steps, ["saliency"])
    tokens = token_targets(targets["saliency"], [(8, 8), (4, 4)])
    collate = Collate(activations.values, {"saliency": tokens})
    ProbeBankModule(bank, images=6).training_step(collate(range(6))).backward()
    for layer in CHANNELS:
        for step in (0, 1):
            probe = as_module(bank, "saliency", layer, step)
            logits = probe(activations.values[layer][step].movedim(1, -1)).movedim(-1, 1)
            pixels = nn.functional.interpolate(logits, (16, 16), mode="nearest")
            nn.functional.cross_entropy(pixels, targets["saliency"].long()).backward()
            gradient = bank.weight("saliency", layer).grad
            assert gradient is not None
            torch.testing.assert_close(gradient[step], next(probe.parameters()).grad)


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
            expected = as_module(bank, name, DEEP, step)(activation[step].movedim(1, -1)).movedim(-1, 1)
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


def test_an_mlp_starts_the_same_whatever_else_is_in_the_bank() -> None:
    whole = ProbeBank(CHANNELS, [0, 1, 2], PROPERTIES, head="mlp", bias=True, seed=4)
    part = ProbeBank({DEEP: 5}, [2], ["shading"], head="mlp", bias=True, seed=4)
    for one, other in zip(
        part.head_of("shading", DEEP).parameters(), whole.head_of("shading", DEEP).parameters(), strict=True
    ):
        assert torch.equal(one[0], other[2])


def test_an_mlp_has_no_single_weight() -> None:
    with pytest.raises(TypeError, match="no single direction"):
        ProbeBank(CHANNELS, [0], ["depth"], head="mlp").weight("depth", DEEP)


def test_an_unknown_property_is_refused() -> None:
    with pytest.raises(UserError, match="saliency"):
        ProbeBank(CHANNELS, [0], ["salience"])

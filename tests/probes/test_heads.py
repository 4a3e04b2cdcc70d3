from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffprobe.probes.bank import Head, run_heads


def start(name: str, shape: tuple[int, ...], incoming: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(len(name))) / incoming


def alone(head: Head, step: int) -> nn.Module:
    """The head of one step made of torch's layers."""
    layers = [nn.Linear(weight.shape[2], weight.shape[1], bias=head.bias is not None) for weight in head.maps]
    module = nn.Sequential(layers[0], nn.ReLU(), layers[1]) if head.hidden_weight is not None else layers[0]
    with torch.no_grad():
        for mine, theirs in zip(module.parameters(), head.parameters(), strict=True):
            mine.copy_(theirs[step])
    return module


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_is_one_module_per_step(kind: str, bias: bool) -> None:
    head, activation = Head(kind, 5, 3, bias, start), torch.randn(2, 4, 5, 6, 7)
    found = head(activation)
    for step in (0, 1):
        expected = alone(head, step)(activation[step].movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(found[step], expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_together_are_heads_one_by_one(kind: str, bias: bool) -> None:
    heads = [Head(kind, 5, outputs, bias, start) for outputs in (2, 1, 1)]
    activation = torch.randn(2, 4, 5, 6, 6)
    together = run_heads(heads, activation)
    torch.testing.assert_close(together, torch.cat([head(activation) for head in heads], 2))


def test_an_mlp_has_half_as_many_hidden_units_as_channels() -> None:
    for channels, hidden in ((8, 4), (1, 1)):
        weight = Head("mlp", channels, 1, True, start).hidden_weight
        assert weight is not None
        assert weight.shape == (2, hidden, channels)

"""What a probe is: a map from a token's channels to its outputs, one for each step, all steps in one product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Start = Callable[[str, tuple[int, ...], int], Tensor]
"""(name, shape, channels that come in) -> where a parameter starts, [steps, *shape]."""


class LinearHead(nn.Module):
    """`weight` [steps, outputs, channels] and `bias` [steps, outputs] or None."""

    def __init__(self, channels: int, outputs: int, bias: bool, start: Start) -> None:
        super().__init__()
        self.weight = nn.Parameter(start("weight", (outputs, channels), channels))
        self.bias = nn.Parameter(start("bias", (outputs,), channels)) if bias else None

    def forward(self, activation: Tensor) -> Tensor:
        """Activation [steps, batch, channels, h, w] -> [steps, batch, outputs, h, w]."""
        return _affine(activation, self.weight, self.bias)

    @property
    def maps(self) -> list[nn.Parameter]:
        """All parameters but the biases."""
        return [self.weight]


class MlpHead(nn.Module):
    """Two layers with half as many hidden units as channels, and ReLU between them.

    `hidden_weight` [steps, hidden, channels], `weight` [steps, outputs, hidden]; `hidden_bias` [steps, hidden] and
    `bias` [steps, outputs], or None.
    """

    def __init__(self, channels: int, outputs: int, bias: bool, start: Start) -> None:
        super().__init__()
        hidden = max(1, channels // 2)
        self.hidden_weight = nn.Parameter(start("hidden_weight", (hidden, channels), channels))
        self.hidden_bias = nn.Parameter(start("hidden_bias", (hidden,), channels)) if bias else None
        self.weight = nn.Parameter(start("weight", (outputs, hidden), hidden))
        self.bias = nn.Parameter(start("bias", (outputs,), hidden)) if bias else None

    def forward(self, activation: Tensor) -> Tensor:
        """Activation [steps, batch, channels, h, w] -> [steps, batch, outputs, h, w]."""
        hidden = _affine(activation, self.hidden_weight, self.hidden_bias).relu()
        return _affine(hidden, self.weight, self.bias)

    @property
    def maps(self) -> list[nn.Parameter]:
        """All parameters but the biases."""
        return [self.hidden_weight, self.weight]


Head = LinearHead | MlpHead
KINDS: dict[str, type[LinearHead] | type[MlpHead]] = {"linear": LinearHead, "mlp": MlpHead}


def run_heads(heads: Sequence[Head], activation: Tensor) -> Tensor:
    """Outputs of several heads for the same activation [steps, batch, channels, h, w], one after another along the
    outputs: [steps, batch, outputs, h, w]. Linear heads are one product."""
    linear = [head for head in heads if isinstance(head, LinearHead)]
    if len(linear) < len(heads):
        return torch.cat([head(activation) for head in heads], 2)
    weights: list[Tensor] = [head.weight for head in linear]
    biases: list[Tensor] = [head.bias for head in linear if head.bias is not None]
    return _affine(activation, torch.cat(weights, 1), torch.cat(biases, 1) if biases else None)


def _affine(activation: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`weight` [steps, outputs, channels] and `bias` [steps, outputs] on [steps, batch, channels, h, w]."""
    steps, batch, channels, height, width = activation.shape
    tokens = activation.to(weight.dtype).reshape(steps * batch, channels, height * width)
    maps = weight[:, None].expand(-1, batch, -1, -1).flatten(0, 1)
    outputs = torch.bmm(maps, tokens).view(steps, batch, -1, height, width)
    return outputs if bias is None else outputs + bias[:, None, :, None, None]

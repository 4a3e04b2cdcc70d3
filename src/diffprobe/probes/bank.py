"""The probe bank: every probe of a run, (layer x step x property), in one module.

What a probe is: a map from a token's channels to its outputs, one for each step, all steps in one product.

How the probes of a run are made: what they are, and what finds their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Annotated
from zlib import crc32

import torch
from torch import Tensor, nn

from diffprobe.errors import UserError
from diffprobe.probes.properties import Property, Standardisation, property_named
from diffprobe.ranges import Choice, Count, Items, Keys, Name, Number

SOLVERS = ("adam", "ridge", "exact")
HEADS = ("linear", "mlp")
PROPERTIES = ("saliency", "depth", "shading")
Rate = Annotated[float, Number(above=0, high=10)]
Strengths = Annotated[Sequence[Annotated[float, Number(1e-12, 1_000_000)]], Items(1)]


@dataclass(frozen=True)
class ProbeConfig:
    """One kind of probe. The defaults are those of Chen, Viégas and Wattenberg (2023, appendix).

    Attributes:
        name: what tables call it, in their column `probe`.
        solver: 'adam' (the papers'), 'ridge' (closed form, squared error) or 'exact' (the loss of 'adam', solved to
            convergence).
        head: 'linear', or 'mlp' with half as many hidden units as channels. Only 'adam' trains an 'mlp'.
        bias: of the head's layers (an mlp has two).
        l1: weight of the sum of absolute weights in the loss. 'adam' only.
        smoothness: weight of the edge-aware smoothness of the predicted map in the loss. 'adam' only.
        epochs, batch_size, validate_every, learning_rates: of 'adam'. `batch_size` is in images, of all devices
            together. Each probe keeps the weights of the epoch with the lowest validation loss, looked at every
            `validate_every` epochs; `learning_rates` replaces the papers' for some properties.
        strengths: of 'ridge' and 'exact', as multiples of the mean eigenvalue of the tokens' second moment; the best
            on validation images is taken.

    Raises:
        UserError: an unknown solver or head, or a head or penalty that the solver does not know.
    """

    name: Annotated[str, Name()] = "linear"
    solver: Annotated[str, Choice(*SOLVERS)] = "adam"
    head: Annotated[str, Choice(*HEADS)] = "linear"
    bias: bool = False
    l1: Annotated[float, Number(0, 1000)] = 0.0
    smoothness: Annotated[float, Number(0, 1000)] = 0.0
    epochs: Count = 30
    batch_size: Count = 4
    validate_every: Count = 2
    learning_rates: Annotated[Mapping[str, Rate], Keys(*PROPERTIES, called="property")] = field(default_factory=dict)
    strengths: Strengths = (
        1e-6,
        1e-5,
        1e-4,
        1e-3,
        1e-2,
        1e-1,
        1.0,
    )

    def __post_init__(self) -> None:
        for key, value, choices in (("solver", self.solver, SOLVERS), ("head", self.head, HEADS)):
            if value not in choices:
                raise UserError(f"probe.{key}={value}: choose one of {', '.join(choices)}")
        if self.l1 < 0 or self.smoothness < 0:
            raise UserError(f"probe.l1={self.l1} probe.smoothness={self.smoothness}: penalties must not be negative")
        if self.solver != "adam" and (self.head != "linear" or self.l1 or self.smoothness):
            raise UserError(
                f"probe.solver={self.solver} knows linear probes without l1 or smoothness; choose probe.solver=adam"
            )
        if self.solver != "adam" and (not self.strengths or min(self.strengths) <= 0):
            raise UserError(f"probe.strengths={list(self.strengths)}: give positive numbers")


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


class ProbeBank(nn.Module):
    """Probes on `channels[layer]` channels for every layer, step and property.

    The probes of one (layer, property) are one head, whose parameters begin with the steps, so all steps run in one
    batched product and every property can have its own learning rate. A probe starts as `nn.Linear` does, from a seed
    made of `seed` and its own (property, layer, step): it is the same probe whatever else is in the bank.

    channels: layer name -> channels, in execution order. steps: 0-based step numbers. properties: their names.
    head: what every probe is, 'linear' or 'mlp'.
    bias: off in the paper, which reports that it does no better.
    standardisations: of the training targets, by property; needed to decode. Missing ones are the identity.
    thresholds: binary property -> layer -> probability above which a pixel is foreground, one per step; 0.5 (the
        paper's argmax) until `scoring.choose_thresholds` gives others.
    strengths: property -> layer -> strength of the penalty that was chosen, one per step; empty where none is chosen.

    Raises UserError for an unknown property.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        steps: Sequence[int],
        properties: Sequence[str],
        *,
        head: str = "linear",
        bias: bool = False,
        seed: int = 0,
        standardisations: Mapping[str, Standardisation] | None = None,
    ) -> None:
        super().__init__()
        self.channels = dict(channels)
        self.steps = list(steps)
        self.properties: dict[str, Property] = {name: property_named(name) for name in properties}
        self.standardisations = {name: (standardisations or {}).get(name, Standardisation()) for name in properties}
        self.thresholds = {
            name: {layer: [0.5] * len(self.steps) for layer in self.channels}
            for name, item in self.properties.items()
            if item.binary
        }
        self.strengths: dict[str, dict[str, list[float]]] = {name: {} for name in properties}
        self.head, self.bias = head, bias
        self.heads = nn.ModuleDict(
            {
                name: nn.ModuleDict({_key(layer): self._new_head(item, layer, seed) for layer in self.channels})
                for name, item in self.properties.items()
            }
        )

    @property
    def layers(self) -> list[str]:
        """Names of the probed layers, in execution order."""
        return list(self.channels)

    def head_of(self, name: str, layer: str) -> Head:
        """The probes of property `name` on `layer`, of all steps."""
        by_layer = self.heads[name]
        assert isinstance(by_layer, nn.ModuleDict)
        return by_layer[_key(layer)]  # type: ignore[return-value]

    def weight(self, name: str, layer: str) -> nn.Parameter:
        """Weights of the linear probes of property `name` on `layer`: [steps, outputs, channels]."""
        return self._linear(name, layer).weight

    def bias_of(self, name: str, layer: str) -> nn.Parameter | None:
        """Biases of the linear probes of property `name` on `layer`: [steps, outputs], or None."""
        return self._linear(name, layer).bias

    def parameters_of(self, name: str, layer: str) -> list[nn.Parameter]:
        """All parameters of the probes of property `name` on `layer`, biases last; steps come first in each."""
        return list(self.head_of(name, layer).parameters())

    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """All properties' outputs for an activation [steps, batch, channels, h, w] -> [steps, batch, outputs, h, w]."""
        return run_heads([self.head_of(name, layer) for name in self.properties], activation)

    def separate(self, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs [..., outputs, h, w] of all properties -> {property: [..., its outputs, h, w]}."""
        parts = outputs.split([item.outputs for item in self.properties.values()], dim=-3)
        return dict(zip(self.properties, parts, strict=True))

    def forward(self, layer: str, activation: Tensor) -> dict[str, Tensor]:
        """Activation of `layer` [steps, batch, channels, h, w] -> {property: [steps, batch, outputs, h, w]}."""
        return self.separate(self.outputs(layer, activation))

    def _linear(self, name: str, layer: str) -> LinearHead:
        head = self.head_of(name, layer)
        if not isinstance(head, LinearHead):
            raise TypeError(f"a probe of kind {self.head!r} is no single weight; see head_of")
        return head

    def _new_head(self, item: Property, layer: str, seed: int) -> Head:
        def start(parameter: str, shape: tuple[int, ...], incoming: int) -> Tensor:
            names = (f"{seed}/{parameter}/{item.name}/{layer}/{step}" for step in self.steps)
            return torch.stack([_initial(name, shape, incoming) for name in names])

        return KINDS[self.head](self.channels[layer], item.outputs, self.bias, start)


def _initial(name: str, shape: tuple[int, ...], incoming: int) -> Tensor:
    """nn.Linear's start, uniform within +-1/sqrt(incoming channels), for weights and biases, from a seed of its own."""
    generator = torch.Generator().manual_seed(crc32(name.encode()))
    return (2 * torch.rand(shape, generator=generator) - 1) / sqrt(incoming)


def _key(layer: str) -> str:
    # Names of modules must not hold dots; names of layers never hold slashes.
    return layer.replace(".", "/")

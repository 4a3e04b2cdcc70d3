"""The probe bank: every linear probe of a run, (layer x step x property), in one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from zlib import crc32

import torch
from torch import Tensor, nn

from diffprobe.probes.properties import Property, Standardisation, property_named


class ProbeBank(nn.Module):
    """Linear probes on `channels[layer]` channels for every layer, step and property.

    The probes of one (layer, property) share a parameter [steps, outputs, channels], so all probes of a layer run in
    one batched product and every property can have its own learning rate. A probe starts as `nn.Linear` does, from a
    seed made of `seed` and its own (property, layer, step): it is the same probe whatever else is in the bank.

    channels: layer name -> channels, in execution order. steps: 0-based step numbers. properties: their names.
    bias: off in the paper, which reports that it does no better.
    standardisations: of the training targets, by property; needed to decode. Missing ones are the identity.
    thresholds: binary property -> layer -> probability above which a pixel is foreground, one per step; 0.5 (the
        paper's argmax) until `scoring.choose_thresholds` gives others.

    Raises UserError for an unknown property.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        steps: Sequence[int],
        properties: Sequence[str],
        *,
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
        self.bias = bias
        self.weights = self._parameters_of("weight", seed)
        self.biases = self._parameters_of("bias", seed) if bias else None

    @property
    def layers(self) -> list[str]:
        """Names of the probed layers, in execution order."""
        return list(self.channels)

    def weight(self, name: str, layer: str) -> nn.Parameter:
        """Weights of the probes of property `name` on `layer`: [steps, outputs, channels]."""
        return _entry(self.weights, name, layer)

    def bias_of(self, name: str, layer: str) -> nn.Parameter | None:
        """Biases of the probes of property `name` on `layer`: [steps, outputs], or None."""
        return None if self.biases is None else _entry(self.biases, name, layer)

    def parameters_of(self, name: str, layer: str) -> list[nn.Parameter]:
        """All parameters of the probes of property `name` on `layer`; steps come first in each."""
        found = [self.weight(name, layer), self.bias_of(name, layer)]
        return [parameter for parameter in found if parameter is not None]

    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """All properties' outputs for an activation [steps, batch, channels, h, w] -> [steps, batch, outputs, h, w]."""
        weight = torch.cat([self.weight(name, layer) for name in self.properties], 1)
        steps, batch, channels, height, width = activation.shape
        tokens = activation.to(weight.dtype).reshape(steps * batch, channels, height * width)
        maps = weight[:, None].expand(-1, batch, -1, -1).flatten(0, 1)
        outputs = torch.bmm(maps, tokens).view(steps, batch, -1, height, width)
        if self.biases is not None:
            bias = torch.cat([_entry(self.biases, name, layer) for name in self.properties], 1)
            outputs = outputs + bias[:, None, :, None, None]
        return outputs

    def separate(self, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs [..., outputs, h, w] of all properties -> {property: [..., its outputs, h, w]}."""
        parts = outputs.split([item.outputs for item in self.properties.values()], dim=-3)
        return dict(zip(self.properties, parts, strict=True))

    def forward(self, layer: str, activation: Tensor) -> dict[str, Tensor]:
        """Activation of `layer` [steps, batch, channels, h, w] -> {property: [steps, batch, outputs, h, w]}."""
        return self.separate(self.outputs(layer, activation))

    def _parameters_of(self, kind: str, seed: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                name: _parameter_dict(
                    {
                        layer: torch.stack([_initial(kind, item, layer, width, step, seed) for step in self.steps])
                        for layer, width in self.channels.items()
                    }
                )
                for name, item in self.properties.items()
            }
        )


def _initial(kind: str, item: Property, layer: str, channels: int, step: int, seed: int) -> Tensor:
    """nn.Linear's start, uniform within +-1/sqrt(channels): [outputs, channels] for a weight, [outputs] for a bias."""
    generator = torch.Generator().manual_seed(crc32(f"{seed}/{kind}/{item.name}/{layer}/{step}".encode()))
    shape = (item.outputs, channels) if kind == "weight" else (item.outputs,)
    return (2 * torch.rand(shape, generator=generator) - 1) / sqrt(channels)


def _parameter_dict(tensors: Mapping[str, Tensor]) -> nn.ParameterDict:
    # Names of parameters must not hold dots; names of layers never hold slashes.
    parameters = nn.ParameterDict()
    for layer, tensor in tensors.items():
        parameters[layer.replace(".", "/")] = nn.Parameter(tensor)
    return parameters


def _entry(parameters: nn.ModuleDict, name: str, layer: str) -> nn.Parameter:
    by_layer = parameters[name]
    assert isinstance(by_layer, nn.ParameterDict)
    return by_layer[layer.replace(".", "/")]

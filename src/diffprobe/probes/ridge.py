"""Linear probes with squared error in closed form, from sums over tokens that one pass over the images leaves.

Let X be the tokens of a layer at a step over all n training tokens and y their targets. The probe w that minimises
|Xw - y|^2 / n + lambda |w|^2 is (X'X / n + lambda)^-1 X'y / n (Hoerl and Kennard 1970). X'X = Q diag(e) Q' gives every
lambda at once: w = Q diag(1 / (e / n + lambda)) Q'X'y / n. So X'X and X'y are all that is kept of the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.precision import float32_products
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.properties import Property, Standardisation, property_named
from diffprobe.probes.scoring import grid_of, target_maps, token_means
from diffprobe.probes.splits import Split

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over processes."""

Strengths = Mapping[str, Mapping[str, Sequence[float]]]
"""Property -> layer -> the strength that the probe of each step has."""

VALUES_AT_ONCE = 2**25  # of one layer's steps, which are added together: fewer calls; more would take more memory
SLOPE = 4.0  # of the log odds in the probability at 1/2: sigmoid(4 (p - 1/2)) is p to first order


class PixelSums:
    """Sums of target maps over pixels, for their mean and standard deviation. float64."""

    def __init__(self, properties: Sequence[str]) -> None:
        self.properties = {name: property_named(name) for name in properties}
        self.sums: dict[str, Tensor] = {}  # [3]: number, sum, sum of squares

    def add(self, targets: Mapping[str, Tensor]) -> None:
        """Target maps {property: [batch, H, W]}."""
        for name in self.properties:
            flat = targets[name].double()
            sums = torch.stack([flat.new_tensor(flat.numel()), flat.sum(), flat.square().sum()])
            self.sums[name] = self.sums.get(name, 0) + sums

    def merge(self, reduce: Reduce) -> None:
        """Adds up the sums of several processes."""
        self.sums = {name: reduce(total) for name, total in self.sums.items()}

    def standardisations(self) -> dict[str, Standardisation]:
        """Of the targets, as `Property.standardisation`. Raises UserError as that does."""
        found = {}
        for name, item in self.properties.items():
            count, total, squares = self.sums[name].tolist()
            mean = total / count
            variance = squares / count - mean**2
            constant = variance <= 1e-12 * mean**2  # what rounding leaves of a constant's
            std = 0.0 if constant else variance**0.5
            found[name] = Standardisation() if item.binary else item.checked(Standardisation(mean, std))
        return found


class LayerSums(NamedTuple):
    """Sums over the tokens X of a layer and their targets y, float64."""

    count: Tensor  # of tokens, []
    squares: Tensor  # X'X [steps, C, C]
    sums: Tensor  # X'1 [steps, C]
    products: Tensor  # X'y [steps, C, properties]
    targets: Tensor  # 1'y [properties]


class Moments:
    """Sums over the training images, of targets over pixels, and of each layer over tokens, for all steps at once.

    They are steps x channels^2 numbers a layer, whatever the number of images, on the device of what is added.
    """

    def __init__(self, properties: Sequence[str], probe_config: ProbeConfig) -> None:
        self.probe_config = probe_config
        self.pixels = PixelSums(properties)
        self.properties = self.pixels.properties
        self.layers: dict[str, LayerSums] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Activations {layer: [steps, batch, C, h, w]} and target maps {property: [batch, H, W]} of some images."""
        self.pixels.add(targets)
        with float32_products():
            for layer, activation in values.items():
                grid = grid_of(activation)
                pooled = [token_means(targets[name].double(), grid).flatten() for name in self.properties]
                self._add_layer(layer, activation, torch.stack(pooled, 1))

    def _add_layer(self, layer: str, activation: Tensor, wanted: Tensor) -> None:
        """Activations [steps, batch, C, h, w] and the targets of their tokens [batch x h x w, properties]."""
        steps, channels, properties = activation.shape[0], activation.shape[2], wanted.shape[1]
        if layer not in self.layers:
            shapes = ((), (steps, channels, channels), (steps, channels), (steps, channels, properties), (properties,))
            with torch.inference_mode(False):  # they are added to in Lightning's prediction and after it
                self.layers[layer] = LayerSums(*(wanted.new_zeros(shape) for shape in shapes))
        own = self.layers[layer]
        own.count.add_(len(wanted))
        own.targets.add_(wanted.sum(0))
        at_once = max(1, VALUES_AT_ONCE // activation[0].numel())
        for start in range(0, steps, at_once):
            these = slice(start, start + at_once)
            squares, sums, products = _sums_of(as_tokens(activation[these]), wanted)
            own.squares[these] += squares
            own.sums[these] += sums
            own.products[these] += products

    def merge(self, reduce: Reduce) -> None:
        """Adds up the sums of several processes."""
        self.pixels.merge(reduce)
        self.layers = {layer: LayerSums(*map(reduce, sums)) for layer, sums in self.layers.items()}

    def solve(self) -> RidgePath:
        """The probes of every strength. Raises UserError for training labels that do not vary."""
        return RidgePath(self)


class RidgePath:
    """The probes of every strength of penalty: `weights[layer]` [strengths, steps, properties, C], `biases` alike.

    Their outputs are standardised quantities, or log odds of foreground: a binary target's fraction p is learned as
    4 (p - 1/2), which its log odds are to first order, so that all probes are decoded alike.
    """

    def __init__(self, moments: Moments) -> None:
        self.properties, self.bias = moments.properties, moments.probe_config.bias
        self.standardisations = moments.pixels.standardisations()
        offered = torch.tensor(list(moments.probe_config.strengths), dtype=torch.float64)[:, None, None]
        self.strengths: dict[str, Tensor] = {}  # of each layer's probes, [strengths, steps, properties]
        self.weights: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        for layer, sums in moments.layers.items():
            self.weights[layer], self.biases[layer] = self._solve(sums, offered)
            self.strengths[layer] = offered.expand(self.weights[layer].shape[:-1])

    def _solve(self, layer: LayerSums, strengths: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [strengths, steps, properties, C] and biases, for strengths [strengths, 1, 1]."""
        count, sums = layer.count, layer.sums
        scale, shift = self._coding(sums)
        products = (layer.products * scale + sums[..., None] * shift) / count
        second, mean = layer.squares / count, sums / count
        target_mean = layer.targets / count * scale + shift
        if self.bias:
            second = second - mean[:, :, None] * mean[:, None, :]
            products = products - mean[..., None] * target_mean
        values, vectors = torch.linalg.eigh(second)
        rotated = vectors.transpose(1, 2) @ products  # [steps, C, properties]
        penalty = strengths.to(values) * values.mean(-1)[:, None]
        weights = vectors @ (rotated / (values.clamp(min=0) + penalty)[..., None])
        weights = weights.transpose(-1, -2)
        biases = target_mean - (weights @ mean[..., None])[..., 0]
        return weights.float(), (biases if self.bias else torch.zeros_like(biases)).float()

    def _coding(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What is learned is target x scale + shift, [properties] each."""
        pairs = [
            (SLOPE, -SLOPE / 2) if item.binary else (1 / one.std, -one.mean / one.std)
            for item, one in zip(self.properties.values(), self.standardisations.values(), strict=True)
        ]
        scale, shift = torch.tensor(pairs, dtype=like.dtype, device=like.device).unbind(1)
        return scale, shift

    @torch.no_grad()
    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """[steps, batch, C, h, w] -> [strengths, properties, steps, batch, h, w], standardised or log odds."""
        weights = self.weights[layer]
        strengths, steps, properties, channels = weights.shape
        grid = activation.shape[-2:]
        maps = weights.permute(1, 0, 2, 3).reshape(steps, strengths * properties, channels)
        found = torch.bmm(maps, as_tokens(activation).transpose(1, 2))
        found = found.view(steps, strengths, properties, activation.shape[1], *grid).permute(1, 2, 0, 3, 4, 5)
        return found + self.biases[layer].permute(0, 2, 1)[..., None, None, None]

    def errors(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error over tokens, [strengths, properties, steps, batch]."""
        scale, shift = self._coding(outputs)
        wanted = torch.stack([token_means(targets[name].to(outputs), grid_of(outputs)) for name in self.properties])
        wanted = wanted * scale[:, None, None, None] + shift[:, None, None, None]
        return (outputs - wanted[:, None]).square().mean((-2, -1))

    def decode(self, item: Property, outputs: Tensor) -> Tensor:
        """Probabilities of foreground, or standardised values."""
        return outputs.sigmoid() if item.binary else outputs

    def take(self, chosen: Mapping[str, Tensor]) -> RidgePath:
        """The probes at the strengths numbered {layer: [properties, steps]}, alone."""

        def at(values: Tensor, numbers: Tensor) -> Tensor:
            """[strengths, steps, properties, ...] -> [1, steps, properties, ...]"""
            properties, steps = numbers.shape
            return values[numbers.T.to(values.device), torch.arange(steps)[:, None], torch.arange(properties)][None]

        taken = copy(self)
        taken.weights, taken.biases, taken.strengths = (
            {layer: at(values, chosen[layer]) for layer, values in parts.items()}
            for parts in (self.weights, self.biases, self.strengths)
        )
        return taken

    def first_strengths(self) -> dict[str, dict[str, list[float]]]:
        """Property -> layer -> strength of the first probe of each step: after `take`, of the one that was taken."""
        return {
            name: {layer: values[0, :, number].tolist() for layer, values in self.strengths.items()}
            for number, name in enumerate(self.properties)
        }

    def bank(self, steps: Sequence[int]) -> ProbeBank:
        """The probes of the first strength."""
        channels = {layer: weights.shape[-1] for layer, weights in self.weights.items()}
        bank = ProbeBank(channels, steps, list(self.properties), bias=self.bias, standardisations=self.standardisations)
        bank.strengths = self.first_strengths()
        for layer in channels:
            for number, (name, item) in enumerate(self.properties.items()):
                parts = (self.weights[layer][0, :, number], self.biases[layer][0, :, number])
                for parameter, values in zip(bank.head_of(name, layer).parameters(), parts, strict=False):
                    # The log odds of a binary property as two logits, of background and foreground
                    both = torch.stack([-values / 2, values / 2], 1) if item.binary else values[:, None]
                    parameter.data.copy_(both)
        return bank.cpu().eval().requires_grad_(False)


def ridge_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    probe_config: ProbeConfig,
) -> ProbeBank:
    """All probes by ridge regression; each has the strength with the lowest squared error on validation images.

    targets: label maps [images, H, W] by property, in the order of `activations.names`. Raises UserError for unknown
    properties and label maps that do not fit or do not vary.
    """
    maps = {name: target_maps(targets, name, activations.names) for name in properties}
    moments = Moments(properties, probe_config)
    layers = [layer.name for layer in activations.layers]
    for rows in _chunks(split.train, probe_config.batch_size):
        values = {layer: activations.values[layer][:, rows] for layer in layers}
        moments.add(values, {name: maps[name][rows] for name in properties})
    path = moments.solve()
    errors: dict[str, Tensor] = {}
    for rows in _chunks(split.validation, probe_config.batch_size):
        wanted = {name: maps[name][rows] for name in properties}
        for layer in layers:
            found = path.errors(path.outputs(layer, activations.values[layer][:, rows]), wanted)
            errors[layer] = errors.get(layer, 0) + found.double().sum(-1)
    return path.take({layer: values.argmin(0) for layer, values in errors.items()}).bank(activations.steps)


def _chunks(rows: Sequence[int], size: int) -> Iterable[list[int]]:
    """The rows in order, `size` at a time."""
    return (list(rows[start : start + size]) for start in range(0, len(rows), size))


def as_tokens(activation: Tensor) -> Tensor:
    """[steps, batch, C, h, w] -> [steps, batch x h x w, C] in float32."""
    return activation.float().permute(0, 1, 3, 4, 2).flatten(1, 3)


def _sums_of(tokens: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X'X [steps, C, C], X'1 [steps, C] and X'y [steps, C, properties] in float64 of tokens X [steps, n, C] and their
    targets y [n, properties].

    Products are of distances to the batch's own means, a and b in X = m + a and y = l + b, in `product_precision`; the
    means are added in float64: X'X = a'a + (a'1) m' + m (X'1)' and likewise X'y. Without that, float32 would be too
    little where a channel's mean is many times its standard deviation ("massive activations", Sun et al. 2024, arXiv
    2402.17762).
    """
    precision = product_precision(tokens.device)
    middle, level = tokens.mean(1, keepdim=True), wanted.mean(0)
    around, beyond = tokens.to(precision) - middle, (wanted - level).to(precision)
    middle, left = middle[:, 0].double(), around.sum(1, dtype=torch.float64)
    sums = left + tokens.shape[1] * middle
    squares = (around.mT @ around).double() + left[..., None] * middle[:, None] + middle[..., None] * sums[:, None]
    products = (around.mT @ beyond).double() + left[..., None] * level + middle[..., None] * wanted.sum(0)
    return squares, sums, products


def product_precision(device: torch.device) -> torch.dtype:
    """Of products of tokens: float64 on a CPU, where that is cheap, and float32 on GPUs, where it is not."""
    return torch.float64 if device.type == "cpu" else torch.float32


def edge_lines(chosen: Mapping[str, Strengths], offered: Sequence[float]) -> list[str]:
    """One line for people where probes have the smallest or the largest of several strengths on offer, else none.

    chosen: by control, 'none' for the network itself. offered: `ProbeConfig.strengths`.
    """
    smallest, largest = min(offered), max(offered)
    values = {
        control: [value for layers in properties.values() for each in layers.values() for value in each]
        for control, properties in chosen.items()
    }
    own, others = values.pop("none", []), [value for each in values.values() for value in each]
    edges = {"smallest": (smallest, smallest / 10), "largest": (largest, 10 * largest)}
    reached = {name: ends for name, ends in edges.items() if ends[0] in (*own, *others)}
    if smallest == largest or not reached:
        return []
    counts = [
        f"the {name}, {edge:g}, was chosen by {own.count(edge)} of {len(own)} probes"
        + (f" and {others.count(edge)} of {len(others)} of controls" if others else "")
        for name, (edge, _) in reached.items()
    ]
    wider = " and ".join(f"{beyond:g}" for _, beyond in reached.values())
    return [f"probe.strengths: {'; '.join(counts)}. Better ones may lie beyond: add {wider}"]

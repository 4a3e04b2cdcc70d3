"""Linear probes with squared error in closed form, from sums over tokens that one pass over the images leaves.

Let X be the tokens of a layer at a step over all training images and z their targets. The probe w that minimises
|Xw - z|^2 / n + lambda |w|^2 is (X'X / n + lambda)^-1 X'z / n (Hoerl and Kennard 1970). X'X = Q diag(e) Q' gives every
lambda at once: w = Q diag(1 / (e / n + lambda)) Q'X'z / n. So X'X and X'z are all that is kept of the activations.

Strengths of penalties that validation images have chosen, and whether the best lie beyond those on offer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy

import torch
from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.precision import float32_products
from diffprobe.probes.bank import ProbeBank, ProbeConfig
from diffprobe.probes.properties import Property, Standardisation, property_named
from diffprobe.probes.scoring import Grid, target_maps, token_means
from diffprobe.probes.splits import Split

Reduce = Callable[[Tensor], Tensor]
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
            _add(self.sums, name, torch.stack([flat.new_tensor(flat.numel()), flat.sum(), flat.square().sum()]))

    def merge(self, reduce: Reduce) -> None:
        """Adds up what several processes have seen; `reduce` sums a tensor over them."""
        self.sums = {name: reduce(total) for name, total in self.sums.items()}

    def standardisations(self) -> dict[str, Standardisation]:
        """Of the targets, as `Property.standardisation`. Raises UserError as that does."""
        return {name: _standardisation(item, self.sums[name]) for name, item in self.properties.items()}


class Moments:
    """Sums over the training images: of targets over pixels, and of each layer over tokens, for all steps at once.

    float64 on the device of what is added. The same memory whatever the number of images:
    steps x channels^2 numbers a layer.
    """

    def __init__(self, properties: Sequence[str], probe_config: ProbeConfig) -> None:
        self.probe_config = probe_config
        self.pixels = PixelSums(properties)
        self.properties = self.pixels.properties
        self.tokens: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}  # X'X [steps, C, C]
        self.sums: dict[str, Tensor] = {}  # X'1 [steps, C]
        self.products: dict[str, Tensor] = {}  # X'y [steps, C, properties]
        self.targets: dict[str, Tensor] = {}  # 1'y [properties]

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Activations {layer: [steps, batch, C, h, w]} and target maps {property: [batch, H, W]} of some images."""
        self.pixels.add(targets)
        with float32_products():
            for layer, activation in values.items():
                self._add_layer(layer, activation, self._token_targets(targets, activation))

    def _add_layer(self, layer: str, activation: Tensor, wanted: Tensor) -> None:
        """Activations [steps, batch, C, h, w] and the targets of their tokens [batch x h x w, properties]."""
        steps, channels, properties = activation.shape[0], activation.shape[2], wanted.shape[1]
        if layer not in self.squares:
            with torch.inference_mode(False):  # they are added to in Lightning's prediction and after it
                self.squares[layer] = wanted.new_zeros(steps, channels, channels)
                self.sums[layer] = wanted.new_zeros(steps, channels)
                self.products[layer] = wanted.new_zeros(steps, channels, properties)
                self.targets[layer] = wanted.new_zeros(properties)
                self.tokens[layer] = wanted.new_zeros(())
        self.tokens[layer] += len(wanted)
        self.targets[layer] += wanted.sum(0)
        for step in range(steps):  # one at a time, since copies in float64 take room
            squares, sums, products = _sums_of(as_tokens(activation[step : step + 1])[0], wanted)
            self.squares[layer][step] += squares
            self.sums[layer][step] += sums
            self.products[layer][step] += products

    def merge(self, reduce: Reduce) -> None:
        """Adds up what several processes have seen; `reduce` sums a tensor over them."""
        self.pixels.merge(reduce)
        for sums in (self.squares, self.sums, self.products, self.targets, self.tokens):
            for layer in sums:
                sums[layer] = reduce(sums[layer])

    def solve(self) -> RidgePath:
        """The probes of every strength. Raises UserError for training labels that do not vary."""
        return RidgePath(self)

    def _token_targets(self, targets: Mapping[str, Tensor], activation: Tensor) -> Tensor:
        """[batch x tokens, properties]"""
        grid: Grid = (activation.shape[-2], activation.shape[-1])
        return torch.stack([token_means(targets[name].double(), grid).flatten() for name in self.properties], 1)


class RidgePath:
    """The probes of every strength of penalty: `weights[layer]` [strengths, steps, properties, C], `biases` alike.

    Their outputs are standardised quantities, or log odds of foreground: a binary target's fraction p is learned as
    4 (p - 1/2), to which the log odds of p are equal to first order, so that the same decoding serves all probes.
    """

    def __init__(self, moments: Moments) -> None:
        self.properties, self.bias = moments.properties, moments.probe_config.bias
        self.standardisations = moments.pixels.standardisations()
        offered = torch.tensor(list(moments.probe_config.strengths), dtype=torch.float64)[:, None, None]
        self.strengths: dict[str, Tensor] = {}  # of each layer's probes, [strengths, steps, properties]
        self.weights: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        for layer in moments.squares:
            self.weights[layer], self.biases[layer] = self._solve(moments, layer)
            self.strengths[layer] = offered.expand(self.weights[layer].shape[:-1])

    def _solve(self, moments: Moments, layer: str) -> tuple[Tensor, Tensor]:
        count, sums = moments.tokens[layer], moments.sums[layer]
        scale, shift = self._coding(sums)
        products = (moments.products[layer] * scale + sums[..., None] * shift) / count
        second, mean = moments.squares[layer] / count, sums / count
        target_mean = moments.targets[layer] / count * scale + shift
        if self.bias:
            second = second - mean[:, :, None] * mean[:, None, :]
            products = products - mean[..., None] * target_mean
        values, vectors = torch.linalg.eigh(second)
        rotated = vectors.transpose(1, 2) @ products  # [steps, C, properties]
        penalty = torch.tensor(list(moments.probe_config.strengths), dtype=values.dtype, device=values.device)
        penalty = penalty[:, None, None] * values.mean(-1)[:, None]
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
        grid: Grid = (outputs.shape[-2], outputs.shape[-1])
        scale, shift = self._coding(outputs)
        wanted = torch.stack([token_means(targets[name].to(outputs), grid) for name in self.properties])
        wanted = wanted * scale[:, None, None, None] + shift[:, None, None, None]
        return (outputs - wanted[:, None]).square().mean((-2, -1))

    def decode(self, item: Property, outputs: Tensor) -> Tensor:
        """Probabilities of foreground, or standardised values."""
        return outputs.sigmoid() if item.binary else outputs

    def take(self, chosen: Mapping[str, Tensor]) -> RidgePath:
        """The probes at the strengths numbered {layer: [properties, steps]}, alone."""
        taken = copy(self)
        taken.weights, taken.biases, taken.strengths = (
            {layer: _at(parts[layer], chosen[layer].to(parts[layer].device)) for layer in parts}
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
        bank = ProbeBank(
            {layer: weights.shape[-1] for layer, weights in self.weights.items()},
            steps,
            list(self.properties),
            bias=self.bias,
            standardisations=self.standardisations,
        )
        bank.strengths = self.first_strengths()
        for layer, weights in self.weights.items():
            for number, (name, item) in enumerate(self.properties.items()):
                parts = (weights[0, :, number], self.biases[layer][0, :, number])
                for parameter, values in zip(bank.parameters_of(name, layer), parts, strict=False):
                    parameter.data.copy_(_logits(values) if item.binary else values[:, None])
        return bank.cpu().eval().requires_grad_(False)


def ridge_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    probe_config: ProbeConfig,
) -> ProbeBank:
    """All probes by ridge regression; each has the strength with the lowest squared error on validation images.

    targets: label maps [images, H, W] by property, in the row order of `activations.names`. Raises UserError for
    unknown properties and label maps that do not fit or do not vary.
    """
    maps = {name: target_maps(targets, name, activations.names) for name in properties}
    moments = Moments(properties, probe_config)
    layers = [layer.name for layer in activations.layers]
    for rows in chunks(split.train, probe_config.batch_size):
        values = {layer: activations.values[layer][:, rows] for layer in layers}
        moments.add(values, {name: maps[name][rows] for name in properties})
    path = moments.solve()
    errors: dict[str, Tensor] = {}
    for rows in chunks(split.validation, probe_config.batch_size):
        wanted = {name: maps[name][rows] for name in properties}
        for layer in layers:
            found = path.errors(path.outputs(layer, activations.values[layer][:, rows]), wanted)
            _add(errors, layer, found.double().sum(-1))
    return path.take({layer: values.argmin(0) for layer, values in errors.items()}).bank(activations.steps)


def chunks(rows: Sequence[int], size: int) -> Iterable[list[int]]:
    """The rows in order, `size` at a time."""
    return (list(rows[start : start + size]) for start in range(0, len(rows), size))


def as_tokens(activation: Tensor) -> Tensor:
    """[steps, batch, C, h, w] -> [steps, batch x h x w, C] in float32."""
    return activation.float().permute(0, 1, 3, 4, 2).flatten(1, 3)


def _sums_of(tokens: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X'X [C, C], X'1 [C] and X'y [C, properties] in float64 of tokens X [n, C] and their targets y [n, properties].

    Products are of distances to the batch's own means, a and b in X = m + a and y = l + b, in the precision that
    `product_precision` gives; the means come back in float64: X'X = a'a + (a'1) m' + m (X'1)' and likewise X'y. Without
    that, float32 would lose what is learnt from where a channel's mean is many times its standard deviation, of which
    the networks have some ("massive activations", Sun et al. 2024, arXiv 2402.17762).
    """
    precision = product_precision(tokens.device)
    middle, level = tokens.mean(0), wanted.mean(0)
    around, beyond = tokens.to(precision) - middle, (wanted - level).to(precision)
    middle, left = middle.double(), around.sum(0, dtype=torch.float64)
    sums = left + len(tokens) * middle
    squares = (around.T @ around).double() + left[:, None] * middle + middle[:, None] * sums
    products = (around.T @ beyond).double() + left[:, None] * level + middle[:, None] * wanted.sum(0)
    return squares, sums, products


def product_precision(device: torch.device) -> torch.dtype:
    """Of products of tokens: float64 on a CPU, where that is cheap, and float32 on GPUs, where it is not."""
    return torch.float64 if device.type == "cpu" else torch.float32


def _at(values: Tensor, chosen: Tensor) -> Tensor:
    """Of values [strengths, steps, properties, ...] those numbered `chosen` [properties, steps]: [1, steps, ...]."""
    properties, steps = chosen.shape
    return values[chosen.T, torch.arange(steps)[:, None], torch.arange(properties)][None]


def _logits(values: Tensor) -> Tensor:
    """Log odds' weights [steps, ...] -> those of the two logits (background, foreground), [steps, 2, ...]."""
    return torch.stack([-values / 2, values / 2], 1)


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = value.double() if key not in sums else sums[key] + value


def _standardisation(item: Property, pixels: Tensor) -> Standardisation:
    if item.binary:
        return Standardisation()
    count, total, squares = pixels.tolist()
    mean = total / count
    variance = squares / count - mean**2
    constant = variance <= 1e-12 * mean**2  # what rounding leaves of a constant's
    return item.checked(Standardisation(mean, 0.0 if constant else variance**0.5))


Strengths = Mapping[str, Mapping[str, Sequence[float]]]
"""Property -> layer -> the strength that the probe of each step has."""


def edge_lines(chosen: Mapping[str, Strengths], offered: Sequence[float]) -> list[str]:
    """One line for people where probes have the smallest or the largest strength on offer, else none.

    A probe with such a strength might be better with one beyond it. Where only one is on offer, nothing is chosen.

    Args:
        chosen: by control, 'none' for the network itself.
        offered: `ProbeConfig.strengths`.
    """
    smallest, largest = min(offered), max(offered)
    values = {
        control: [value for layers in properties.values() for each in layers.values() for value in each]
        for control, properties in chosen.items()
    }
    own, others = values.pop("none", []), [value for each in values.values() for value in each]
    at = {edge: [own.count(edge), others.count(edge)] for edge in (smallest, largest)}
    if smallest == largest or not any(map(sum, at.values())):
        return []
    told = [
        f"{name}, {edge:g}, was chosen by {at[edge][0]} of {len(own)} probes"
        + (f" and {at[edge][1]} of {len(others)} of controls" if others else "")
        for name, edge in (("the smallest", smallest), ("the largest", largest))
        if any(at[edge])
    ]
    wider = [f"{value:g}" for value, edge in ((smallest / 10, smallest), (10 * largest, largest)) if any(at[edge])]
    return [f"probe.strengths: {'; '.join(told)}. Better ones may lie beyond: add {' and '.join(wider)}"]

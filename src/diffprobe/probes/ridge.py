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
from diffprobe.probes.scoring import target_maps
from diffprobe.probes.splits import Split
from diffprobe.properties import Property, Standardisation, as_properties
from diffprobe.properties.tokens import grid_of

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over processes."""

Strengths = Mapping[str, Mapping[str, Sequence[float]]]
"""Property -> layer -> the strength that the probe of each step has."""

VALUES_AT_ONCE = 2**25  # of one layer's steps, which are added together: fewer calls; more would take more memory


class PixelSums:
    """`Property.sums` of the training targets, added up while images pass by."""

    def __init__(self, properties: Sequence[str | Property]) -> None:
        self.properties = as_properties(properties)
        self.sums: dict[str, Tensor] = {}

    def add(self, targets: Mapping[str, Tensor]) -> None:
        """Targets by property of some images."""
        for name, item in self.properties.items():
            self.sums[name] = self.sums.get(name, 0) + item.sums(targets[name])

    def merge(self, reduce: Reduce) -> None:
        """Adds up the sums of several processes."""
        self.sums = {name: reduce(total) for name, total in self.sums.items()}

    def standardisations(self) -> dict[str, Standardisation]:
        """Of the targets. Raises UserError as `Property.standardisation_of`."""
        return {name: item.standardisation_of(self.sums[name]) for name, item in self.properties.items()}


class LayerSums(NamedTuple):
    """Sums over the tokens X of a layer and their targets y, float64. Tokens count by the share w of their pixels that
    have a label, and y is the mean over the token's pixels, where those without one count as 0."""

    count: Tensor  # of tokens, 1'w []
    squares: Tensor  # X'WX [steps, C, C]
    sums: Tensor  # X'w [steps, C]
    products: Tensor  # X'y [steps, C, maps]
    targets: Tensor  # 1'y [maps]


class Moments:
    """Sums over the training images, of targets over pixels, and of each layer over tokens, for all steps at once.

    They are steps x channels^2 numbers a layer, whatever the number of images, on the device of what is added.
    Properties share them; one that has a pixel without a label has its own from then on.
    """

    def __init__(self, properties: Sequence[str | Property], probe_config: ProbeConfig) -> None:
        self.probe_config = probe_config
        self.pixels = PixelSums(properties)
        self.properties = self.pixels.properties
        self.places = _places(self.properties)
        self.layers: dict[str, LayerSums] = {}
        self.own: dict[str, dict[str, LayerSums]] = {}  # of properties with pixels without labels, by layer

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Activations {layer: [steps, batch, C, h, w]} and targets {property: [batch, H, W]} of some images."""
        self.pixels.add(targets)
        for name, item in self.properties.items():
            if name not in self.own and not item.all_labelled(targets[name]):
                self._separate(name)
        with float32_products():
            for layer, activation in values.items():
                grid = grid_of(activation)
                planes = {name: item.planes(targets[name].double(), grid) for name, item in self.properties.items()}
                regressed = {name: own[:, : self.properties[name].regressed] for name, own in planes.items()}
                wanted = torch.cat([_of_tokens(own) for own in regressed.values()], 1)
                self._add_layer(self.layers, layer, activation, wanted)
                for name, layers in self.own.items():
                    weights = self.properties[name].weights(planes[name])
                    assert weights is not None
                    own = wanted[:, self.places[name]]
                    self._add_layer(layers, layer, activation, own, _of_tokens(weights[:, None])[:, 0])

    def _separate(self, name: str) -> None:
        """Gives a property sums of its own; so far they are those of all, since all pixels had labels."""
        place = self.places[name]
        self.own[name] = {
            layer: LayerSums(
                count=sums.count.clone(),
                squares=sums.squares.clone(),
                sums=sums.sums.clone(),
                products=sums.products[..., place].clone(),
                targets=sums.targets[place].clone(),
            )
            for layer, sums in self.layers.items()
        }

    def _add_layer(
        self,
        layers: dict[str, LayerSums],
        layer: str,
        activation: Tensor,
        wanted: Tensor,
        weights: Tensor | None = None,
    ) -> None:
        """Activations [steps, batch, C, h, w], the targets of their tokens [batch x h x w, maps], and the share of each
        token's pixels that have one [batch x h x w], where that is not all."""
        steps, channels, maps = activation.shape[0], activation.shape[2], wanted.shape[1]
        if layer not in layers:
            shapes = ((), (steps, channels, channels), (steps, channels), (steps, channels, maps), (maps,))
            with torch.inference_mode(False):  # they are added to in Lightning's prediction and after it
                layers[layer] = LayerSums(*(wanted.new_zeros(shape) for shape in shapes))
        own = layers[layer]
        own.count.add_(len(wanted) if weights is None else weights.sum())
        own.targets.add_(wanted.sum(0))
        at_once = max(1, VALUES_AT_ONCE // activation[0].numel())
        for start in range(0, steps, at_once):
            these = slice(start, start + at_once)
            squares, sums, products = _sums_of(as_tokens(activation[these]), wanted, weights)
            own.squares[these] += squares
            own.sums[these] += sums
            own.products[these] += products

    def merge(self, reduce: Reduce) -> None:
        """Adds up the sums of several processes."""
        self.pixels.merge(reduce)
        like = next(iter(self.layers.values())).count
        for name in self.properties:
            if reduce(torch.full_like(like, float(name in self.own))) and name not in self.own:
                self._separate(name)
        for layers in (self.layers, *(self.own[name] for name in self.properties if name in self.own)):
            layers.update({layer: LayerSums(*map(reduce, sums)) for layer, sums in layers.items()})

    def solve(self) -> RidgePath:
        """The probes of every strength. Raises UserError for training labels that do not vary."""
        return RidgePath(self)


def _places(properties: Mapping[str, Property]) -> dict[str, slice]:
    """Where the maps of each property are among those of all."""
    found, start = {}, 0
    for name, item in properties.items():
        found[name] = slice(start, start + item.regressed)
        start += item.regressed
    return found


def _of_tokens(planes: Tensor) -> Tensor:
    """[batch, planes, h, w] -> [batch x h x w, planes] in float64"""
    return planes.double().movedim(1, -1).flatten(0, 2)


class RidgePath:
    """The probes of every strength of penalty: `weights[layer]` [strengths, steps, maps, C], `biases` alike.

    Least squares predicts standardised quantities and vectors, or logits: a fraction p of K classes is learned as
    K p - 1, which its logit is to first order, so that all probes are decoded alike.
    """

    def __init__(self, moments: Moments) -> None:
        self.properties, self.bias = moments.properties, moments.probe_config.bias
        self.places = moments.places
        self.standardisations = moments.pixels.standardisations()
        offered = torch.tensor(list(moments.probe_config.strengths), dtype=torch.float64)[:, None, None]
        self.strengths: dict[str, Tensor] = {}  # of each layer's probes, [strengths, steps, properties]
        self.weights: dict[str, Tensor] = {}
        self.biases: dict[str, Tensor] = {}
        for layer, sums in moments.layers.items():
            weights, biases = self._solve(sums, offered, list(self.properties))
            for name, layers in moments.own.items():
                place = self.places[name]
                weights[:, :, place], biases[:, :, place] = self._solve(layers[layer], offered, [name])
            self.weights[layer], self.biases[layer] = weights, biases
            self.strengths[layer] = offered.expand(*weights.shape[:2], len(self.properties))

    def _solve(self, layer: LayerSums, strengths: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Weights [strengths, steps, maps, C] and biases of some properties, for strengths [strengths, 1, 1]."""
        count, sums = layer.count, layer.sums
        scale, shift = self._coding(sums, names)
        products = (layer.products * scale + sums[..., None] * shift) / count
        second, mean = layer.squares / count, sums / count
        target_mean = layer.targets / count * scale + shift
        if self.bias:
            second = second - mean[:, :, None] * mean[:, None, :]
            products = products - mean[..., None] * target_mean
        values, vectors = torch.linalg.eigh(second)
        rotated = vectors.transpose(1, 2) @ products  # [steps, C, maps]
        penalty = strengths.to(values) * values.mean(-1)[:, None]
        weights = vectors @ (rotated / (values.clamp(min=0) + penalty)[..., None])
        weights = weights.transpose(-1, -2)
        biases = target_mean - (weights @ mean[..., None])[..., 0]
        return weights.float(), (biases if self.bias else torch.zeros_like(biases)).float()

    def _coding(self, like: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What is learned is target x scale + shift, [maps] each."""
        codings = [self.properties[name].coding(self.standardisations[name]) for name in names]
        scale, shift = (
            torch.tensor([value for own in part for value in own], dtype=like.dtype, device=like.device)
            for part in zip(*codings, strict=True)
        )
        return scale, shift

    @torch.no_grad()
    def outputs(self, layer: str, activation: Tensor) -> Tensor:
        """[steps, batch, C, h, w] -> [strengths, steps, batch, maps, h, w], of all properties."""
        weights = self.weights[layer]
        strengths, steps, count, channels = weights.shape
        grid = activation.shape[-2:]
        maps = weights.permute(1, 0, 2, 3).reshape(steps, strengths * count, channels)
        found = torch.bmm(maps, as_tokens(activation).transpose(1, 2))
        found = found.view(steps, strengths, count, activation.shape[1], *grid).permute(1, 0, 3, 2, 4, 5)
        return found + self.biases[layer][:, :, None, :, None, None]

    def errors(self, outputs: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Mean squared error over labelled tokens and maps, [strengths, properties, steps, batch]."""
        found = []
        for name, item in self.properties.items():
            planes = item.planes(targets[name].to(outputs), grid_of(outputs))
            weights = item.weights(planes)
            share = torch.ones_like(planes[:, :1]) if weights is None else weights[:, None]
            scale, shift = (each[:, None, None] for each in self._coding(outputs, [name]))
            wanted = planes[:, : item.regressed] / share.clamp(min=1e-12) * scale + shift
            squares = (outputs[..., self.places[name], :, :] - wanted).square().mean(-3)
            total = share.sum((1, 2, 3)).clamp(min=1e-12)
            found.append((squares * share[:, 0]).sum((-2, -1)) / total)
        return torch.stack(found, 1)

    def decode(self, name: str, outputs: Tensor) -> Tensor:
        """The predictions of one property, [strengths, steps, batch, h, w] (of vectors [..., channels, h, w])."""
        item = self.properties[name]
        return item.decode(item.from_regressed(outputs[..., self.places[name], :, :]), self.standardisations[name])

    def take(self, chosen: Mapping[str, Tensor]) -> RidgePath:
        """The probes at the strengths numbered {layer: [properties, steps]}, alone."""
        sizes = torch.tensor([item.regressed for item in self.properties.values()])

        def at(values: Tensor, numbers: Tensor) -> Tensor:
            """[strengths, steps, columns, ...] -> [1, steps, columns, ...], by the numbers [columns, steps]"""
            columns, steps = numbers.shape
            return values[numbers.T.to(values.device), torch.arange(steps)[:, None], torch.arange(columns)][None]

        of_maps = {layer: numbers.repeat_interleave(sizes.to(numbers.device), 0) for layer, numbers in chosen.items()}
        taken = copy(self)
        taken.weights, taken.biases = (
            {layer: at(values, of_maps[layer]) for layer, values in parts.items()}
            for parts in (self.weights, self.biases)
        )
        taken.strengths = {layer: at(values, chosen[layer]) for layer, values in self.strengths.items()}
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
        items = list(self.properties.values())
        bank = ProbeBank(channels, steps, items, bias=self.bias, standardisations=self.standardisations)
        bank.strengths = self.first_strengths()
        for layer in channels:
            for name, item in self.properties.items():
                parts = (self.weights[layer][0], self.biases[layer][0, :, :, None])
                for parameter, values in zip(bank.head_of(name, layer).parameters(), parts, strict=False):
                    outputs = item.from_regressed(values[:, self.places[name], :, None])[..., 0]
                    parameter.data.copy_(outputs.view_as(parameter))
        return bank.cpu().eval().requires_grad_(False)


def ridge_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str | Property],
    probe_config: ProbeConfig,
) -> ProbeBank:
    """All probes by ridge regression; each has the strength with the lowest squared error on validation images.

    targets: label maps [images, H, W] by property, in the order of `activations.names`. Raises UserError for unknown
    properties and label maps that do not fit or do not vary.
    """
    items = as_properties(properties)
    maps = {name: target_maps(targets, item, activations.names) for name, item in items.items()}
    moments = Moments(list(items.values()), probe_config)
    layers = [layer.name for layer in activations.layers]
    for rows in _chunks(split.train, probe_config.batch_size):
        values = {layer: activations.values[layer][:, rows] for layer in layers}
        moments.add(values, {name: own[rows] for name, own in maps.items()})
    path = moments.solve()
    errors: dict[str, Tensor] = {}
    for rows in _chunks(split.validation, probe_config.batch_size):
        wanted = {name: own[rows] for name, own in maps.items()}
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


def _sums_of(tokens: Tensor, wanted: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """X'WX [steps, C, C], X'w [steps, C] and X'y [steps, C, maps] in float64 of tokens X [steps, n, C] with weights w
    [n] (1 each by default) and their targets y [n, maps].

    Products are of distances to the batch's own means, a and b in X = m + a and y = w l + b, in `product_precision`;
    the means are added in float64: X'WX = a'Wa + (a'w) m' + m (X'w)' and likewise X'y. Without that, float32 would be
    too little where a channel's mean is many times its standard deviation ("massive activations", Sun et al. 2024,
    arXiv 2402.17762).
    """
    precision = product_precision(tokens.device)
    count = len(wanted) if weights is None else weights.sum()
    middle, level = tokens.mean(1, keepdim=True), wanted.sum(0) / count
    around, every = tokens.to(precision) - middle, middle[:, 0].double()
    if weights is None:
        weighted, beyond = around, (wanted - level).to(precision)
    else:
        weighted = around * weights[:, None].to(precision)
        beyond = (wanted - weights[:, None] * level).to(precision)
    left = weighted.sum(1, dtype=torch.float64)
    sums = left + count * every
    squares = (around.mT @ weighted).double() + left[..., None] * every[:, None] + every[..., None] * sums[:, None]
    products = (around.mT @ beyond).double() + left[..., None] * level + every[..., None] * wanted.sum(0)
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

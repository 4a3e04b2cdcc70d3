"""What training begins with, whatever finds the weights: a bank with its standardisations, and targets for tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from diffprobe.features.reading import ReadableActivations
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.functional import Grid
from diffprobe.probes.properties import property_named
from diffprobe.probes.recipe import Recipe
from diffprobe.probes.splits import Split
from diffprobe.probes.targets import target_maps, token_targets


class Prepared(NamedTuple):
    """`tokens[property][(h, w)]` [images, h, w]: the mean target of each token, standardised."""

    bank: ProbeBank
    tokens: dict[str, dict[Grid, Tensor]]


def prepare_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    recipe: Recipe,
    seed: int,
) -> Prepared:
    """The probes of `recipe` at their start, and what they are to learn.

    targets: label maps [images, H, W] by property, in the row order of `activations.names`.

    Raises UserError for unknown properties and for label maps that do not fit the activations or do not vary.
    """
    maps = {name: target_maps(targets, name, activations.names) for name in properties}
    statistics = {name: property_named(name).standardisation(maps[name][split.train]) for name in properties}
    bank = ProbeBank(
        {layer.name: layer.channels for layer in activations.layers},
        activations.steps,
        properties,
        head=recipe.head,
        bias=recipe.bias,
        seed=seed,
        standardisations=statistics,
    )
    grids = activations.grids
    return Prepared(bank, {name: token_targets(statistics[name].apply(maps[name]), grids) for name in properties})

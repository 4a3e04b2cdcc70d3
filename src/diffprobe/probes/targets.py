"""Label maps to what probes learn and are judged by.

What training begins with, whatever finds the weights: a bank with its standardisations, and targets for tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from diffprobe.activations.activations import ReadableActivations
from diffprobe.errors import UserError
from diffprobe.probes.bank import ProbeBank
from diffprobe.probes.config import ProbeConfig
from diffprobe.probes.functional import Grid, token_means
from diffprobe.probes.properties import property_named
from diffprobe.probes.splits import Split


def target_maps(targets: Mapping[str, Tensor], name: str, names: Sequence[str]) -> Tensor:
    """Target maps [images, H, W] of property `name`, from the label maps of the images called `names`.

    Raises UserError for an unknown property, a wrong number of label maps, and label maps that are not finite.
    """
    item = property_named(name)
    if name not in targets:
        raise UserError(f"no label maps for property {name!r}: there are {', '.join(targets) or 'none'}.")
    labels = targets[name]
    if labels.ndim != 3 or len(labels) != len(names):
        raise UserError(f"{name}: label maps of shape {tuple(labels.shape)}, expected [{len(names)}, height, width].")
    finite = labels.isfinite().flatten(1).all(1).tolist()
    broken = [image for image, good in zip(names, finite, strict=True) if not good]
    if broken:
        raise UserError(f"{name}: {len(broken)} label maps are not finite, the first is that of image {broken[0]!r}.")
    return item.target(labels)


def token_targets(maps: Tensor, grids: Iterable[Grid]) -> dict[Grid, Tensor]:
    """Mean target of each token for each grid (h, w): {grid: [images, h, w]}, from target maps [images, H, W]."""
    return {grid: token_means(maps, grid) for grid in grids}


class UntrainedProbes(NamedTuple):
    """`tokens[property][(h, w)]` [images, h, w]: the mean target of each token, standardised."""

    bank: ProbeBank
    tokens: dict[str, dict[Grid, Tensor]]


def prepare_bank(
    activations: ReadableActivations,
    targets: Mapping[str, Tensor],
    split: Split,
    properties: Sequence[str],
    probe_config: ProbeConfig,
    seed: int,
) -> UntrainedProbes:
    """The probes of `probe_config` at their start, and what they are to learn.

    targets: label maps [images, H, W] by property, in the row order of `activations.names`.

    Raises UserError for unknown properties and for label maps that do not fit the activations or do not vary.
    """
    maps = {name: target_maps(targets, name, activations.names) for name in properties}
    statistics = {name: property_named(name).standardisation(maps[name][split.train]) for name in properties}
    bank = ProbeBank(
        {layer.name: layer.channels for layer in activations.layers},
        activations.steps,
        properties,
        head=probe_config.head,
        bias=probe_config.bias,
        seed=seed,
        standardisations=statistics,
    )
    grids = activations.grids
    return UntrainedProbes(
        bank, {name: token_targets(statistics[name].apply(maps[name]), grids) for name in properties}
    )

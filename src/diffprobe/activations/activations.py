"""Activations of all layers, steps and images of a run, layers joined to groups, and what all their readers share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.backbone.layers import Layer, select_layers
from diffprobe.errors import UserError
from diffprobe.ranges import OneOrMore, Text

NAME = r"[\w.-]+"


class StepValues(Protocol):
    """One layer at every step over all images, [steps, images, channels, h, w]."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __getitem__(self, index: tuple[int | slice, Any], /) -> Tensor:
        """`[:, rows]` or `[step_index, rows]`; only what is indexed is read."""
        ...


class ReadableActivations:
    """Activations in memory, on disk, or of groups of layers.

    Attributes:
        steps: indices in the trajectory, from 0.
        timesteps: the scheduler's timestep at each of the steps, in [0, 1000].
        names: the image ids, by row.
        values: `StepValues` by name of the layer.
    """

    layers: list[Layer]
    steps: list[int]
    timesteps: list[float]
    names: list[str]
    values: Any

    @property
    def grids(self) -> list[tuple[int, int]]:
        """The distinct resolutions (height, width) of the layers, smallest first."""
        return sorted({(layer.height, layer.width) for layer in self.layers})

    def chosen(self, layers: Sequence[str], steps: Sequence[int]) -> tuple[list[Layer], list[int]]:
        """Some layers by name, and the indices of some steps.

        Raises:
            UserError: one that is not there, with what is; or none wanted.
        """
        by_name = {layer.name: layer for layer in self.layers}
        unknown = [*(name for name in layers if name not in by_name), *(k for k in steps if k not in self.steps)]
        if unknown or not layers or not steps:
            raise UserError(
                f"no activations of {unknown[0] if unknown else 'no layers or no steps'}; there are layers "
                f"{', '.join(by_name)} and steps {', '.join(map(str, self.steps))}"
            )
        return [by_name[name] for name in layers], [self.steps.index(step) for step in steps]


@dataclass
class Activations(ReadableActivations):
    """Activations in memory: `values[layer.name]` is [steps, images, channels, height, width], on the CPU.

    Raises ValueError when a layer is missing or a shape disagrees with the lists.
    """

    layers: list[Layer]
    steps: list[int]
    timesteps: list[float]
    names: list[str]
    values: dict[str, Tensor]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.timesteps):
            raise ValueError(f"{len(self.steps)} steps but {len(self.timesteps)} timesteps")
        for layer in self.layers:
            expected = (len(self.steps), len(self.names), layer.channels, layer.height, layer.width)
            if layer.name not in self.values:
                raise ValueError(f"no values for layer {layer.name!r}")
            found = tuple(self.values[layer.name].shape)
            if found != expected:
                raise ValueError(f"layer {layer.name!r} has shape {found}, expected {expected}")

    def select(self, layers: Sequence[str], steps: Sequence[int]) -> Activations:
        """Some layers and steps, in the order given; evenly spaced steps are views. Raises UserError as `chosen`."""
        chosen, indices = self.chosen(layers, steps)
        stride = indices[1] - indices[0] if len(indices) > 1 else 1
        even = slice(indices[0], indices[-1] + 1, stride) if stride > 0 else slice(0)
        index = even if list(range(len(self.steps)))[even] == indices else indices
        values = {layer.name: self.values[layer.name][index] for layer in chosen}
        return Activations(chosen, list(steps), [self.timesteps[at] for at in indices], self.names, values)


def rows_of(names: Sequence[str], ids: Sequence[str]) -> list[int]:
    """Where each of `ids` is among `names`. Raises UserError, with the nearest names, for one that is not."""
    row_of = {name: row for row, name in enumerate(names)}
    for name in ids:
        if name not in row_of:
            near = get_close_matches(name, row_of, n=3)
            hint = f"nearest: {', '.join(near)}" if near else f"there are {len(row_of)} images, first {names[0]!r}"
            raise UserError(f"there is no image {name!r}; {hint}")
    return [row_of[name] for name in ids]


# One item or a list of items of `select_layers`: a layer's name, a pattern, a kind, a stage.
LayerItems = OneOrMore(Annotated[str, Text()])
Groups = dict[str, Annotated[Any, LayerItems]]


@dataclass(frozen=True)
class LayerSelection:
    """Layers to probe one by one (`select`), and groups of layers that are one input each."""

    select: Annotated[Any, LayerItems] | None = None
    groups: Groups | None = None


@dataclass(frozen=True)
class LayerGroup:
    """Layers, in execution order, whose activations are joined to one input of a probe, called `name`."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def layer(self) -> Layer:
        """The group as a layer, of kind and stage 'group': all channels, on the largest height and width."""
        return Layer(
            name=self.name,
            kind="group",
            stage="group",
            channels=sum(layer.channels for layer in self.layers),
            height=max(layer.height for layer in self.layers),
            width=max(layer.width for layer in self.layers),
        )


def parse_groups(wanted: Mapping[str, Any], layers: Sequence[Layer]) -> list[LayerGroup]:
    """The groups that `layers.groups` means: {name: an item of `select_layers`, or a list of them}.

    layers: all that the model has.

    Raises:
        UserError: a name with other characters, or of a layer; a group without layers; an item that matches nothing.
    """
    taken = {layer.name for layer in layers}
    groups = []
    for name, items in wanted.items():
        if not re.fullmatch(NAME, str(name)):
            raise UserError(f"layers.groups: the name {name!r} may hold letters, digits, '.', '_' and '-' only")
        if name in taken:
            raise UserError(f"layers.groups.{name}: a layer has that name; call the group something else")
        if not items or not isinstance(items, str | Sequence):
            raise UserError(f"layers.groups.{name}={items}: list at least one layer, for example [stage=decoder]")
        try:
            chosen = select_layers(list(layers), items)
        except UserError as error:
            raise UserError(f"layers.groups.{name}: {error}") from error
        groups.append(LayerGroup(str(name), tuple(chosen)))
    return groups


def concatenate(group: LayerGroup, values: Mapping[str, Tensor]) -> Tensor:
    """{layer: [batch, its channels, its h, its w]} -> [batch, all channels, h, w], resized to the group's grid.

    As Bonechi et al. 2024 (Diff-Props), "Feature Concatenation".
    """
    grid = (group.layer.height, group.layer.width)
    return torch.cat([resize_activation(values[layer.name], grid) for layer in group.layers], 1)


def resize_activation(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """[batch, channels, h, w] on another grid, bilinear, corners not aligned; its dtype stays."""
    if tuple(values.shape[-2:]) == grid:
        return values
    return F.interpolate(values.float(), grid, mode="bilinear", align_corners=False).to(values.dtype)


class GroupValues:
    """`StepValues` of a group, read and concatenated when indexed."""

    def __init__(self, group: LayerGroup, values: Mapping[str, StepValues]) -> None:
        self.group, self.parts = group, {layer.name: values[layer.name] for layer in group.layers}
        first, joined = next(iter(self.parts.values())), group.layer
        self.dtype = first.dtype
        self.shape = torch.Size((*first.shape[:2], joined.channels, joined.height, joined.width))

    def __getitem__(self, index: tuple[int | slice, Any]) -> Tensor:
        parts = {name: values[index] for name, values in self.parts.items()}
        leading = next(iter(parts.values())).shape[:-3]
        joined = concatenate(self.group, {name: part.reshape(-1, *part.shape[-3:]) for name, part in parts.items()})
        return joined.reshape(*leading, *joined.shape[1:])


class GroupedActivations(ReadableActivations):
    """Activations of some layers and of groups of layers.

    layers: those that stay inputs of their own, before the groups.

    Raises:
        UserError: the activations lack a layer of a group.
    """

    def __init__(
        self, activations: ReadableActivations, groups: Sequence[LayerGroup], layers: Sequence[Layer] = ()
    ) -> None:
        for group in groups:
            lacking = [layer.name for layer in group.layers if layer.name not in activations.values]
            if lacking:
                raise UserError(f"group {group.name!r} needs {lacking[0]}, which was not recorded; record it too")
        self.layers = [*layers, *(group.layer for group in groups)]
        self.steps, self.timesteps, self.names = activations.steps, activations.timesteps, activations.names
        self.values: dict[str, StepValues] = {
            **{layer.name: activations.values[layer.name] for layer in layers},
            **{group.name: GroupValues(group, activations.values) for group in groups},
        }

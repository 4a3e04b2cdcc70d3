"""The activations of a run in memory: every wanted layer, step and image.

What anything that reads activations may count on, whether they are in memory, on disk, or groups of others.

Several layers as one: resized to the largest of their grids and concatenated, as in Diff-Props.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffprobe.backbone.layers import Layer, select_layers
from diffprobe.errors import UserError
from diffprobe.ranges import OneOrMore, Text

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.backbone.layers import Layer


class StepValues(Protocol):
    """One layer at every step over all images, [steps, images, channels, h, w]."""

    @property
    def shape(self) -> torch.Size: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __getitem__(self, index: tuple[int | slice, Any], /) -> Tensor:
        """`[:, rows]` or `[steps, rows]`; only what is asked for is read."""
        ...


class ReadableActivations(Protocol):
    """The attributes of `Activations` that `StoredActivations` and `GroupedActivations` have too."""

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def steps(self) -> list[int]: ...

    @property
    def timesteps(self) -> list[float]: ...

    @property
    def names(self) -> list[str]: ...

    @property
    def grids(self) -> list[tuple[int, int]]: ...

    @property
    def values(self) -> Mapping[str, Any]:
        """`StepValues` by name of the layer."""
        ...


@dataclass
class Activations:
    """Outputs of `layers` while the denoiser made (or saw) the images called `names`.

    `values[layer.name]` is `[steps, images, channels, height, width]`, float16 or float32, on the CPU: the conditional
    half unless the extraction was asked for the other. `steps` are 0-based positions in the sampling trajectory and
    `timesteps` the scheduler's t in [0, 1000) at each of them.

    Raises ValueError when a layer is missing or a shape disagrees with the lists.
    """

    layers: list[Layer]
    steps: list[int]
    timesteps: list[float]
    names: list[str]
    values: dict[str, Tensor]

    @property
    def grids(self) -> list[tuple[int, int]]:
        """The distinct resolutions (height, width) of the layers, smallest first."""
        return sorted({(layer.height, layer.width) for layer in self.layers})

    def select(self, layers: Sequence[str], steps: Sequence[int]) -> Activations:
        """The same activations of some layers and steps alone, in the order given; evenly spaced steps are not copied.

        Raises:
            UserError: a layer or step that is not there.
        """
        chosen, places = select_layers_and_steps(self.layers, self.steps, layers, steps)
        run = _evenly_spaced(places)
        values = {layer.name: self.values[layer.name][run] for layer in chosen}
        return Activations(chosen, list(steps), [self.timesteps[place] for place in places], self.names, values)

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


def select_layers_and_steps(
    layers: Sequence[Layer], steps: Sequence[int], wanted_layers: Sequence[str], wanted_steps: Sequence[int]
) -> tuple[list[Layer], list[int]]:
    """The wanted layers, and the places of the wanted steps, among those that are there.

    Raises:
        UserError: one that is not there, with what is; or none wanted.
    """
    by_name = {layer.name: layer for layer in layers}
    strange = [*(name for name in wanted_layers if name not in by_name), *(k for k in wanted_steps if k not in steps)]
    if strange or not wanted_layers or not wanted_steps:
        raise UserError(
            f"no activations of {strange[0] if strange else 'no layers or no steps'}; there are layers "
            f"{', '.join(by_name)} and steps {', '.join(map(str, steps))}"
        )
    return [by_name[name] for name in wanted_layers], [list(steps).index(step) for step in wanted_steps]


def _evenly_spaced(places: list[int]) -> slice | list[int]:
    """The places as a slice, which a tensor is indexed by without copying, where they rise evenly."""
    stride = places[1] - places[0] if len(places) > 1 else 1
    even = slice(places[0], places[-1] + 1, stride) if stride > 0 else slice(0)
    return even if list(range(places[-1] + 1))[even] == places else places


def rows_of(names: Sequence[str], ids: Sequence[str]) -> list[int]:
    """Where each of `ids` is among `names`. Raises UserError, with the nearest names, for one that is not."""
    row_of = {name: row for row, name in enumerate(names)}
    for name in ids:
        if name not in row_of:
            near = get_close_matches(name, row_of, n=3)
            hint = f"nearest: {', '.join(near)}" if near else f"there are {len(row_of)} images, first {names[0]!r}"
            raise UserError(f"there is no image {name!r}; {hint}")
    return [row_of[name] for name in ids]


NAME = r"[\w.-]+"


# What `select` may hold: a layer's name, a pattern, a kind, a stage; one or a list of them.
LayerItems = OneOrMore(Annotated[str, Text()])
Groups = dict[str, Annotated[Any, LayerItems]]


@dataclass(frozen=True)
class LayerSelection:
    """Which layers are looked at: those that `select` names, and groups of layers that are one input each."""

    select: Annotated[Any, LayerItems] | None = None
    groups: Groups | None = None


@dataclass(frozen=True)
class LayerGroup:
    """Layers, in execution order, whose activations are one input of a probe, called `name`."""

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
        UserError: a name that is no word or that a layer has, a group without layers, an item that matches nothing.
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
    """{layer: [batch, its channels, its h, its w]} -> [batch, all channels, h, w] of the group, in their precision.

    Bilinear, corners not aligned (Bonechi et al. 2024, Diff-Props, "Feature Concatenation"); layers on the
    grid of the group stay as they are.
    """
    grid = (group.layer.height, group.layer.width)
    return torch.cat([resize_activation(values[layer.name], grid) for layer in group.layers], 1)


def resize_activation(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """[batch, channels, h, w] on another grid, bilinear, corners not aligned, in its precision; on its own as it is."""
    if tuple(values.shape[-2:]) == grid:
        return values
    return F.interpolate(values.float(), grid, mode="bilinear", align_corners=False).to(values.dtype)


class GroupValues:
    """A group at every step over all images, [steps, images, channels, h, w]; read and concatenated when indexed."""

    def __init__(self, group: LayerGroup, values: Mapping[str, StepValues]) -> None:
        self.group, self.parts = group, {layer.name: values[layer.name] for layer in group.layers}
        first = next(iter(self.parts.values()))
        made = group.layer
        self.dtype = first.dtype
        self.shape = torch.Size((*first.shape[:2], made.channels, made.height, made.width))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: tuple[int | slice, Any]) -> Tensor:
        parts = {name: values[index] for name, values in self.parts.items()}
        leading = next(iter(parts.values())).shape[:-3]
        flat = {name: part.reshape(-1, *part.shape[-3:]) for name, part in parts.items()}
        return concatenate(self.group, flat).unflatten(0, leading) if leading else concatenate(self.group, flat)[0]


class GroupedActivations:
    """Activations with groups among their layers: what reads the ones reads the others.

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

    @property
    def grids(self) -> list[tuple[int, int]]:
        """The distinct resolutions (height, width) of layers and groups, smallest first."""
        return sorted({(layer.height, layer.width) for layer in self.layers})

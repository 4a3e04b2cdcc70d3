"""What anything that reads activations may count on, whether they are in memory, on disk, or groups of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from diffprobe.backbone.layers import Layer


class Values(Protocol):
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
        """`Values` by name of the layer."""
        ...

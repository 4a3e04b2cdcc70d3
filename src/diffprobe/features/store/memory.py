"""The same manifest and the same `put` as a store's writer, for activations that stay in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffprobe.features.activations import Activations
from diffprobe.features.store.finite import check_stored
from diffprobe.features.store.layout import extra_name, tensor_name, tensor_specs
from diffprobe.features.store.manifest import Manifest
from diffprobe.features.store.writer import stored_copy


class MemoryWriter:
    """Collects what a `StoreWriter` would write; takes its place wherever only `put` is called.

    Attributes:
        activations: filled by `put`; zeros until then.
        extras: by name, [images, *shape], or [steps, images, *shape] for an extra of every step.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest, self._specs = manifest, tensor_specs(manifest)
        self._places: dict[str, Tensor] = {}
        values = {
            layer.name: self._every_step(layer.name, (layer.channels, layer.height, layer.width), manifest.dtype)
            for layer in manifest.layers
        }
        layers, timesteps = list(manifest.layers), list(manifest.timesteps)
        self.activations = Activations(layers, list(manifest.steps), timesteps, manifest.ids, values)
        self.extras: dict[str, Tensor] = {}
        for extra in manifest.extras:
            make = self._every_step if extra.every_step else self._once
            self.extras[extra.name] = make(extra_name(extra.name), extra.shape, extra.dtype)

    def _every_step(self, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
        steps = self._manifest.steps
        tensor = torch.zeros(len(steps), len(self._manifest.images), *shape, dtype=getattr(torch, dtype))
        self._places.update({tensor_name(name, step): tensor[place] for place, step in enumerate(steps)})
        return tensor

    def _once(self, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
        self._places[name] = torch.zeros(len(self._manifest.images), *shape, dtype=getattr(torch, dtype))
        return self._places[name]

    def put(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """As `StoreWriter.put`."""
        if name not in self._specs:
            raise ValueError(f"there is no tensor {name!r}")
        copied = stored_copy(self._specs[name], rows, values, len(self._manifest.images))
        check_stored(self._specs[name], copied, [self._manifest.ids[row] for row in rows])
        self._places[name][list(rows)] = copied

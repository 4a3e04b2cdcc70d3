"""Stored activations: indexed like those in memory, read from disk when they are indexed, and checked."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffprobe.activations.activations import ReadableActivations, rows_of
from diffprobe.activations.store.folder import Store, open_store
from diffprobe.activations.store.shards import Shard, ShardHeader, TensorSpec, extra_name, tensor_name
from diffprobe.errors import UserError

OPEN_FILES = 32


class StoredActivations(ReadableActivations):
    """A finished store: `values[layer][:, rows]` reads and checks those rows.

    It can be handed to DataLoader workers, forked or spawned. `extras[name]` is indexed `[rows]`, or `[:, rows]` for
    an extra of every step.

    Raises UserError when shards are missing or damaged.
    """

    def __init__(self, store: Store) -> None:
        survey = store.survey()
        if survey.damaged:
            shard, why = next(iter(survey.damaged.items()))
            raise UserError(
                f"{len(survey.damaged)} damaged shards in {store.folder}, first {shard.path.name}, which {why}. "
                "Run the extraction again: it keeps them as *.damaged and makes them anew"
            )
        if survey.missing:
            raise UserError(
                f"{len(survey.missing)} of {len(store.shards)} shards are missing in {store.folder}, first "
                f"{survey.missing[0].path.name}; run the extraction again to finish them"
            )
        manifest = store.manifest
        self.layers, self.steps = list(manifest.layers), list(manifest.steps)
        self.timesteps, self.names = list(manifest.timesteps), manifest.ids
        files = _ShardFiles(store, survey.finished)
        rows = {name: StoredRows(files, spec, column) for column, (name, spec) in enumerate(store.specs.items())}
        self.values: dict[str, StoredSteps] = {
            layer.name: StoredSteps([rows[tensor_name(layer.name, step)] for step in self.steps])
            for layer in self.layers
        }
        self.extras: dict[str, StoredRows | StoredSteps] = {
            extra.name: StoredSteps([rows[extra_name(extra.name, step)] for step in self.steps])
            if extra.every_step
            else rows[extra_name(extra.name)]
            for extra in manifest.extras
        }

    def select(self, layers: Sequence[str], steps: Sequence[int]) -> StoredActivations:
        """Some layers and steps with their extras, in the order given. Reads nothing. Raises UserError as `chosen`."""
        chosen, indices = self.chosen(layers, steps)
        view = copy(self)
        view.layers, view.steps = chosen, list(steps)
        view.timesteps = [self.timesteps[index] for index in indices]
        view.values = {layer.name: self.values[layer.name].select(indices) for layer in chosen}
        view.extras = {
            name: extra.select(indices) if isinstance(extra, StoredSteps) else extra
            for name, extra in self.extras.items()
        }
        return view

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """The rows of these images. Raises UserError for an id that is not in the store."""
        return rows_of(self.names, ids)


def load_activations(folder: str | Path) -> StoredActivations:
    """The activations of a finished store. Raises UserError when there is none, or it is not finished."""
    return StoredActivations(open_store(folder))


class StoredRows:
    """One tensor of a store, [images, *shape]; indexing by rows reads them into memory."""

    def __init__(self, files: _ShardFiles, spec: TensorSpec, column: int) -> None:
        self._files, self._spec, self._column = files, spec, column
        self.dtype = spec.torch_dtype
        self.shape = torch.Size((files.images, *spec.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Tensor:
        index = _positions(len(self), rows)
        out = torch.empty((*index.shape, *self.shape[1:]), dtype=self.dtype)
        self.read_into(index.reshape(-1).tolist(), out)
        return out

    def read_into(self, rows: Sequence[int], out: Tensor) -> None:
        """Reads rows into `out`, contiguous and of the stored dtype, [len(rows), *shape] or that of a single row."""
        if rows:
            places = out.view(len(rows), -1).view(torch.uint8).numpy()
            for row, place in zip(rows, places, strict=True):
                self._files.read(self._spec, self._column, row, place.data)


class StoredSteps:
    """One tensor at every step over all images, [steps, images, *shape]: `[:, rows]` or `[step_index, rows]`."""

    def __init__(self, steps: Sequence[StoredRows]) -> None:
        self._steps = list(steps)
        self.dtype = self._steps[0].dtype
        self.shape = torch.Size((len(self._steps), *self._steps[0].shape))

    def __len__(self) -> int:
        return self.shape[0]

    def select(self, indices: Sequence[int]) -> StoredSteps:
        """Some of the steps, by their indices here."""
        return StoredSteps([self._steps[index] for index in indices])

    def __getitem__(self, index: tuple[int | slice, Any]) -> Tensor:
        if not (isinstance(index, tuple) and len(index) == 2 and isinstance(index[0], int | slice)):
            raise TypeError("index stored activations by [:, rows] or [step_index, rows]")
        steps, rows = _positions(len(self), index[0]), _positions(self.shape[1], index[1])
        out = torch.empty((*steps.shape, *rows.shape, *self.shape[2:]), dtype=self.dtype)
        for step, part in zip(steps.reshape(-1).tolist(), out if steps.ndim else [out], strict=True):
            self._steps[step].read_into(rows.reshape(-1).tolist(), part)
        return out


def _positions(count: int, index: Any) -> Tensor:
    """The rows of `count` that any index of torch means: an integer, slice, list, tensor or mask."""
    return torch.arange(count)[list(index) if isinstance(index, range) else index]


class _OpenFile:
    """A file descriptor that closes with its last reference."""

    descriptor = -1

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class _ShardFiles:
    """The finished shard files, of which at most `OPEN_FILES` are open.

    Reads give their position, so threads and forked processes may share an open file; spawned ones open their own.
    Checksums are compared when a row is first read in a process: at every read it would halve the speed.
    """

    def __init__(self, store: Store, finished: dict[Shard, ShardHeader]) -> None:
        self.images, self._size = len(store.manifest.images), store.manifest.images_per_shard
        self._shards, self._ids = list(finished), store.manifest.ids
        self._data = [header.data for header in finished.values()]
        self._checksums = np.concatenate([header.checksums for header in finished.values()], axis=1)
        self._trusted = np.zeros(self._checksums.shape, dtype=bool)
        self._opened = lru_cache(OPEN_FILES)(_OpenFile)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._opened = lru_cache(OPEN_FILES)(_OpenFile)

    def read(self, spec: TensorSpec, column: int, row: int, place: memoryview) -> None:
        """Fills `place` with one image's row of a tensor. Raises UserError for other bytes than were written."""
        index, local = divmod(row, self._size)
        shard = self._shards[index]
        position = self._data[index] + spec.position(local, len(shard.rows))
        try:
            whole = _read_all(self._opened(shard.path).descriptor, place, position)
        except OSError as error:
            raise UserError(f"cannot read {shard.path}: {error.strerror}") from error
        if whole and not self._trusted[column, row]:
            self._trusted[column, row] = whole = zlib.crc32(place) == self._checksums[column, row]
        if not whole:
            raise UserError(
                f"{shard.path} is damaged at {spec.name} of image {self._ids[row]!r}. "
                "Delete the file and run the extraction again, which makes this one anew"
            )


def _read_all(descriptor: int, place: memoryview, position: int) -> bool:
    """Whether there was enough to fill `place`."""
    while place:
        count = os.preadv(descriptor, [place], position)
        if count == 0:
            return False
        place, position = place[count:], position + count
    return True


class LayerAtStep(Dataset[tuple[str, Tensor]]):
    """One layer at one step, for DataLoaders: item `row` is an image's id and its activation [channels, height, width].

    Raises UserError for a layer or step that the activations lack.
    """

    def __init__(self, activations: ReadableActivations, layer: str, step: int) -> None:
        _, (self._index,) = activations.chosen([layer], [step])
        self._names, self._values = activations.names, activations.values[layer]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> tuple[str, Tensor]:
        return self._names[row], self._values[self._index, row]

    def __getitems__(self, rows: list[int]) -> list[tuple[str, Tensor]]:
        """The items of one batch, as a DataLoader asks for them."""
        return [(self._names[row], values) for row, values in zip(rows, self._values[self._index, rows], strict=True)]

"""Consumers that keep activations, in memory or in a store, which threads write while the network goes on."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from diffprobe.activations.activations import Activations
from diffprobe.activations.module import Consumer, ImageBatch
from diffprobe.activations.store.folder import Store
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.shards import (
    ShardFile,
    check_stored,
    extra_name,
    tensor_name,
    tensor_specs,
)
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError
from diffprobe.files import remove_leftovers


class TensorWriter(Consumer):
    """Keeps the activations and extras that a manifest names."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest, self._specs = manifest, tensor_specs(manifest)
        self._every_step_extras = [extra.name for extra in manifest.extras if extra.every_step]

    @abstractmethod
    def put(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """Keeps a copy of `values` [len(rows), *shape], from any device, of the tensor called `name` (`tensor_name`).

        Raises:
            UserError: values overflow the manifest's dtype.
            ValueError: a tensor, row or shape that the manifest does not have.
        """

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        if step.index not in self._manifest.steps:
            return
        for layer, values in step.activations.items():
            self.put(tensor_name(layer, step.index), batch.rows, values)
        for name in self._every_step_extras:  # attributes of a step
            self.put(extra_name(name, step.index), batch.rows, getattr(step, name))

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        if images is not None:
            self.put(extra_name("image"), batch.rows, images)

    def _copied(self, name: str, rows: Sequence[int], values: Tensor) -> Tensor:
        """A contiguous copy on the CPU, in the stored dtype."""
        if name not in self._specs:
            raise ValueError(f"there is no tensor {name!r}")
        spec, images = self._specs[name], len(self._manifest.images)
        if tuple(values.shape) != (len(rows), *spec.shape):
            raise ValueError(f"{name}: {list(values.shape)} for {len(rows)} rows of {list(spec.shape)}")
        if len(rows) and not 0 <= min(rows) <= max(rows) < images:
            raise ValueError(f"{name}: rows {min(rows)} to {max(rows)} of {images} images")
        # A GPU fills pinned memory at full speed; torch keeps and reuses it
        copied = torch.empty(values.shape, dtype=spec.torch_dtype, pin_memory=values.is_cuda)
        return copied.copy_(values.detach())


class StoreWriter(TensorWriter):
    """Writes rows of tensors into their shards, in the background.

        with StoreWriter(store) as writer:
            for shard in store.survey().unfinished:
                writer.put(tensor_name(layer, step), shard.rows, values)

    A shard gets its name once all its tensors have all their rows; batches may be smaller than shards or lie across
    two. An error in the block loses the unfinished shards only.
    """

    def __init__(self, store: Store, queue: int = 8) -> None:
        """At most `queue` blocks of rows are held for the disk, then `put` waits."""
        super().__init__(store.manifest)
        self._store = store
        self._files: dict[int, ShardFile] = {}
        self._error: Exception | None = None
        self._blocks = Semaphore(queue)
        self._writer = ThreadPoolExecutor(1, "store-writer")
        # Finishes a shard, which waits for fsync, while the next one is written
        self._finisher = ThreadPoolExecutor(1, "store-finisher")
        self._finishing: Future[None] | None = None

    def __enter__(self) -> StoreWriter:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(error)

    def open(self) -> None:
        remove_leftovers(self._store.folder / "shards")

    def close(self, error: BaseException | None) -> None:
        """Waits for the disk. Where no error came before, raises as `put`, and ValueError for shards that lack rows."""
        self._writer.shutdown()
        self._finisher.shutdown()
        unfinished = list(self._files.values())
        for file in unfinished:
            file.discard()
        self._files.clear()
        if error is None:
            self._raise()
            if unfinished:
                raise ValueError(f"{len(unfinished)} shards lack rows, first {unfinished[0].shard.path.name}")

    def put(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """Also raises UserError when the disk is full or fails, and errors of earlier values."""
        self._raise()
        copied = self._copied(name, rows, values)
        for shard, first, part in _parts(rows, self._store.manifest.images_per_shard):
            self._blocks.acquire()
            written = self._writer.submit(self._attempt, self._write, shard, name, first, copied[part])
            written.add_done_callback(lambda _: self._blocks.release())

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _attempt(self, work: Callable[..., None], *arguments: Any) -> None:
        """Runs in the threads. Nothing is written any more after an error."""
        if self._error is not None:
            return
        try:
            work(*arguments)
        except OSError as error:
            free = shutil.disk_usage(self._store.folder).free
            self._error = UserError(
                f"cannot write activations to {self._store.folder}: {error.strerror} ({free / 1e9:.3g} GB free). "
                "Finished shards are kept: make room there or move the store, and run the same command again"
            )
            self._error.__cause__ = error
        except Exception as error:
            self._error = error

    def _write(self, index: int, name: str, first: int, values: Tensor) -> None:
        if index not in self._files:
            self._files[index] = ShardFile(self._store.manifest, self._store.specs, self._store.shards[index])
        file = self._files[index]
        file.write(name, first, values)
        if file.complete:
            if self._finishing is not None:
                self._finishing.result()  # one shard at a time
            self._finishing = self._finisher.submit(self._attempt, self._finish, index)

    def _finish(self, index: int) -> None:
        self._files[index].finish()
        del self._files[index]


def _parts(rows: Sequence[int], size: int) -> Iterator[tuple[int, int, slice]]:
    """Runs of consecutive rows within one shard: shard, first row in it, and the run's places in `rows`."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place] != rows[place - 1] + 1 or rows[place] % size == 0:
            yield rows[start] // size, rows[start] % size, slice(start, place)
            start = place


class MemoryWriter(TensorWriter):
    """Collects what a `StoreWriter` would write.

    Attributes:
        activations: filled by `put`; zeros until then.
        extras: by name, [images, *shape], or [steps, images, *shape] for an extra of every step.
    """

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._tensors: dict[str, Tensor] = {}  # by the names that `put` takes
        layers, steps, timesteps = list(manifest.layers), list(manifest.steps), list(manifest.timesteps)
        values = {
            layer.name: self._every_step(layer.name, (layer.channels, layer.height, layer.width), manifest.dtype)
            for layer in layers
        }
        self.activations = Activations(layers, steps, timesteps, manifest.ids, values)
        self.extras: dict[str, Tensor] = {}
        for extra in manifest.extras:
            name = extra_name(extra.name)
            if extra.every_step:
                self.extras[extra.name] = self._every_step(name, extra.shape, extra.dtype)
            else:
                tensor = torch.zeros(len(manifest.images), *extra.shape, dtype=getattr(torch, extra.dtype))
                self.extras[extra.name] = self._tensors[name] = tensor

    def _every_step(self, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
        steps = self._manifest.steps
        tensor = torch.zeros(len(steps), len(self._manifest.images), *shape, dtype=getattr(torch, dtype))
        self._tensors.update({tensor_name(name, step): tensor[index] for index, step in enumerate(steps)})
        return tensor

    def put(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        copied = self._copied(name, rows, values)
        check_stored(self._specs[name], copied, [self._manifest.ids[row] for row in rows])
        self._tensors[name][list(rows)] = copied

"""Consumers that keep activations, in memory or in a store: threads do it while the network goes on."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Semaphore
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

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


class Copy(NamedTuple):
    """A copy of values on the CPU; from a GPU it is complete once `arrived` has passed."""

    values: Tensor
    arrived: torch.cuda.Event | None

    def wait(self) -> Tensor:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values


class TensorWriter(Consumer):
    """Keeps the activations and extras that a manifest names.

    Values are copied at once: from a GPU on a stream of their own into pinned memory, while the network goes on. Where
    there is something to wait for, a GPU or a disk, a thread keeps the copies; its errors are raised by the next `put`
    or by `close`.

    Args:
        queue: so many copies wait for the thread at most, then `put` waits; None means those of two steps of a batch.
    """

    waits_for_disk: ClassVar[bool] = True

    def __init__(self, manifest: Manifest, queue: int | None = None) -> None:
        self._manifest, self._specs = manifest, tensor_specs(manifest)
        self._every_step_extras = [extra.name for extra in manifest.extras if extra.every_step]
        self._error: Exception | None = None
        self._free = Semaphore(queue or 2 * (len(manifest.layers) + len(self._every_step_extras)))
        self._keeper = ThreadPoolExecutor(1, "keeper")
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    @abstractmethod
    def keep(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """Keeps what was put, in the thread: `values` are a copy on the CPU in the stored dtype.

        Raises:
            UserError: values overflow the manifest's dtype.
        """

    def put(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """Keeps a copy of `values` [len(rows), *shape], from any device, of the tensor called `name` (`tensor_name`).

        Raises:
            UserError: as `keep`, of these or earlier values.
            ValueError: a tensor, row or shape that the manifest does not have.
        """
        self._raise()
        copied = self._copied(name, rows, values)
        if copied.arrived is None and not self.waits_for_disk:
            self.keep(name, rows, copied.values)  # a thread would fight with the network for the cores
            return
        self._free.acquire()
        kept = self._keeper.submit(self._attempt, self._keep_copy, name, list(rows), copied)
        kept.add_done_callback(lambda _: self._free.release())

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

    def close(self, error: BaseException | None) -> None:
        """Waits until everything is kept. Where no error came before, raises as `put`."""
        self._keeper.shutdown()
        if error is None:
            self._raise()

    def _keep_copy(self, name: str, rows: Sequence[int], copied: Copy) -> None:
        self.keep(name, rows, copied.wait())

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _attempt(self, work: Callable[..., None], *arguments: Any) -> None:
        """Runs in the threads. Nothing is kept any more after an error."""
        if self._error is not None:
            return
        try:
            work(*arguments)
        except Exception as error:
            self._error = error

    def _copied(self, name: str, rows: Sequence[int], values: Tensor) -> Copy:
        """A contiguous copy on the CPU, in the stored dtype."""
        if name not in self._specs:
            raise ValueError(f"there is no tensor {name!r}")
        spec, images = self._specs[name], len(self._manifest.images)
        if tuple(values.shape) != (len(rows), *spec.shape):
            raise ValueError(f"{name}: {list(values.shape)} for {len(rows)} rows of {list(spec.shape)}")
        if len(rows) and not 0 <= min(rows) <= max(rows) < images:
            raise ValueError(f"{name}: rows {min(rows)} to {max(rows)} of {images} images")
        copied = torch.empty(values.shape, dtype=spec.torch_dtype, pin_memory=values.is_cuda)
        if not values.is_cuda:
            return Copy(copied.copy_(values.detach()), None)
        stream = self._streams.setdefault(values.device, torch.cuda.Stream(values.device))
        stream.wait_stream(torch.cuda.current_stream(values.device))  # until the values are computed
        with torch.cuda.stream(stream):
            copied.copy_(values.detach().to(spec.torch_dtype), non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(stream)
        values.record_stream(stream)  # their memory is not used again before
        return Copy(copied, arrived)


class StoreWriter(TensorWriter):
    """Writes rows of tensors into their shards.

        with StoreWriter(store) as writer:
            for shard in store.survey().unfinished:
                writer.put(tensor_name(layer, step), shard.rows, values)

    A shard gets its name once all its tensors have all their rows; batches may be smaller than shards or lie across
    two. An error in the block loses the unfinished shards only.
    """

    def __init__(self, store: Store, queue: int | None = None) -> None:
        super().__init__(store.manifest, queue)
        self._store = store
        self._files: dict[int, ShardFile] = {}
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
        self._keeper.shutdown()
        self._finisher.shutdown()
        unfinished = list(self._files.values())
        for file in unfinished:
            file.discard()
        self._files.clear()
        super().close(error)
        if error is None and unfinished:
            raise ValueError(f"{len(unfinished)} shards lack rows, first {unfinished[0].shard.path.name}")

    def keep(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """Also raises UserError when the disk is full or fails."""
        for shard, first, part in _parts(rows, self._store.manifest.images_per_shard):
            with self._disk_errors():
                self._write(shard, name, first, values[part])

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
        with self._disk_errors():
            self._files[index].finish()
        del self._files[index]

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self._store.folder).free
            raise UserError(
                f"cannot write activations to {self._store.folder}: {error.strerror} ({free / 1e9:.3g} GB free). "
                "Finished shards are kept: make room there or move the store, and run the same command again"
            ) from error


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
        activations: zeros until they are put; complete after `close`.
        extras: by name, [images, *shape], or [steps, images, *shape] for an extra of every step.
    """

    waits_for_disk = False

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

    def keep(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        check_stored(self._specs[name], values, [self._manifest.ids[row] for row in rows])
        for _, first, part in _parts(rows, len(self._manifest.images)):
            run = values[part]
            self._tensors[name][first : first + len(run)] = run  # faster than by a list of rows

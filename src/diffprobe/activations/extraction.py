"""Runs the frozen network once over all images of a source, as Lightning prediction, and keeps the activations."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from diffprobe.activations.activations import Activations
from diffprobe.activations.description import describe, describe_replay, manifest_folder
from diffprobe.activations.sources.source import Source
from diffprobe.activations.store.folder import Store, create_store, taking_turns
from diffprobe.activations.store.layout import extra_name, tensor_name
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.activations.store.writer import MemoryWriter, StoreWriter
from diffprobe.activations.stores import Stores, as_stores
from diffprobe.backbone.calls import decode_latents
from diffprobe.backbone.finite import at_step, naming, one_at_a_time
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError

Put = Callable[[str, Sequence[int], Tensor], None]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Extraction:
    """What one pass over the images leaves.

    Attributes:
        source: where the images came from.
        activations: of the wanted layers at the wanted steps.
        extras: `image` [images, 3, H, W] in [0, 1], generated or real; `noisy` [steps, images, channels, h, w], the
            latents that the denoiser saw; where the source walks, `latents`, the same after each step. Tensors in
            memory, or the like of them on disk: index with [rows] or [:, rows]. Their steps are those of the manifest.
        manifest: what describes all that is kept, which may be more layers and steps than the wanted ones.
        computed: how many images were run; the others were in the store already.
    """

    source: Source
    activations: Activations | StoredActivations
    extras: Any
    manifest: Manifest
    computed: int

    @property
    def images(self) -> Tensor:
        """All images, [images, 3, H, W] in [0, 1]."""
        return self.extras["image"][:]

    @torch.no_grad()
    def decoded(self, backbone: Backbone, row: int) -> Tensor:
        """One image as it looks after each wanted step, [steps, 3, H, W] in [0, 1]."""
        if not self.source.walks:
            return self.extras["image"][row].expand(len(self.activations.steps), -1, -1, -1)
        places = [self.manifest.steps.index(step) for step in self.activations.steps]
        found = []
        for place, step in zip(places, self.activations.steps, strict=True):
            latents = self.extras["latents"][place, row].to(backbone.device, backbone.dtype)
            with naming([self.activations.names[row]], at_step(step, self.manifest.timesteps[place])):
                found.append(decode_latents(backbone, latents[None]).cpu())
        return torch.cat(found)


class ExtractionModule(lightning.LightningModule):
    """Takes rows of images through the frozen network. `predict_step` yields (rows, step) as they are computed.

    `names` are those of all images.
    """

    def __init__(
        self,
        run: Callable[[list[int]], Iterator[Any]],
        batch_size: int,
        batches: Sequence[Sequence[int]],
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self.names = names
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a process may find nothing left to do
        self.run_rows, self.batch_size, self.batches = run, batch_size, batches

    def predict_dataloader(self) -> DataLoader:
        """This process's share: whole shards, each of which belongs to one process whatever is already finished."""
        return DataLoader(_Shards(self.batches), batch_size=None)

    def predict_step(self, rows: Sequence[int], *_: Any) -> Iterator[tuple[list[int], Any]]:
        for start in range(0, len(rows), self.batch_size):
            batch = list(rows[start : start + self.batch_size])
            with self.naming(batch):
                for step in self.run_rows(batch):
                    yield batch, step

    def naming(self, rows: Sequence[int]) -> AbstractContextManager[None]:
        """Says what the images of these rows are called, if one of them is not finite."""
        return naming([self.names[row] for row in rows])


class _Shards(IterableDataset):
    """Iterable, so that Lightning does not distribute what is distributed already."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class _Recorder(BasePredictionWriter):
    """Hands on every step as it is computed, so that no step of a batch is held twice, and says how long it will take.

    Lightning gives it the generator that `predict_step` returned; running through it is the computation.
    """

    def __init__(self, record: Callable[[list[int], Any], None], images: int, tell: Tell) -> None:
        super().__init__("batch")
        self.record, self.images, self.tell = record, images, tell

    def on_predict_start(self, trainer: Any, module: Any) -> None:
        self.started, self.first = time.perf_counter(), True

    def write_on_batch_end(self, trainer: Any, module: Any, prediction: Any, *_: Any) -> None:
        before: list[int] = []
        for rows, step in prediction:
            if before and rows is not before:
                self._estimate(len(before))
            before = rows
            with module.naming(rows):
                self.record(rows, step)
        self._estimate(len(before))

    def _estimate(self, done: int) -> None:
        if self.first and done < self.images:
            seconds = (time.perf_counter() - self.started) / done * (self.images - done)
            self.tell(f"about {_duration(seconds)} for the other {self.images - done} images, by the first {done}")
        self.first = False


def extract(
    backbone: Backbone,
    source: Source,
    layers: Sequence[Layer],
    steps: Sequence[int],
    *,
    batch_size: int = 8,
    dtype: str = "float16",
    stores: Stores | Path | None = None,
    images_per_shard: int = 16,
    trainer: lightning.Trainer | None = None,
    tell: Tell = lambda line: None,
) -> Extraction:
    """Takes every image of the source through its steps once, and keeps the activations of `layers` at `steps`.

    In memory, or in a store in the folder `stores`, whose name follows from all that determines the activations: what
    is there already is not computed again, and an interrupted extraction goes on where it was. Devices share the
    shards of a store among them; of other processes that want the same store at once, one fills it and the rest wait.
    `Stores` may keep more layers and steps than these, for other studies.

    Args:
        steps: which of the source's steps to keep, in order.
        batch_size: images that are run at once.
        dtype: 'float16', 'bfloat16' or 'float32', of the kept activations.
        images_per_shard: of a new store.
        trainer: brings devices; without one, a silent one for one device is made.
        tell: takes a line for people, such as the time that the rest will take.

    Raises:
        UserError: steps that the source does not have, unknown layers, layers or steps that are not among those the
            stores keep, activations that the network or the dtype overflows with, a full or failing disk, or several
            devices without a store.
    """
    where = as_stores(stores)
    kept, kept_steps = where.kept(layers, steps) if where else (list(layers), list(steps))
    manifest = describe(backbone, source, kept, kept_steps, dtype, images_per_shard, identified=where is not None)
    names = [layer.name for layer in kept]

    def run(rows: list[int]) -> Iterator[TrajectoryStep]:
        return source.run(backbone, rows, names, kept_steps)

    last = max(source.timesteps(backbone)) if source.walks else max(kept_steps)

    def record(put: Put, rows: list[int], step: TrajectoryStep) -> None:
        if step.index in kept_steps:
            put_activations(put, rows, step.index, step.activations)
            put(extra_name("noisy", step.index), rows, step.noisy)
            if source.walks:
                put(extra_name("latents", step.index), rows, step.latents)
        if step.index == last:
            pictures = source.pictures(backbone, rows)
            put(extra_name("image"), rows, decoded(backbone, step.latents) if pictures is None else pictures)

    found, extras, computed = fill(manifest, run, record, where, batch_size, trainer, tell)
    return Extraction(source, found.select([layer.name for layer in layers], steps), extras, manifest, computed)


def extract_replayed(
    backbone: Backbone,
    denoiser: nn.Module,
    extraction: Extraction,
    called: Mapping[str, Any],
    *,
    batch_size: int = 8,
    stores: Stores | Path | None = None,
    trainer: lightning.Trainer | None = None,
    tell: Tell = lambda line: None,
) -> Extraction:
    """The same activations, without extras, of another denoiser that is shown the same noisy latents and prompts.

    Args:
        called: what determines that denoiser, see `describe_replay`.
    """
    source, wanted = extraction.source, extraction.activations
    manifest = describe_replay(extraction.manifest, called)
    steps = manifest.steps
    names = [layer.name for layer in manifest.layers]

    def run(rows: list[int]) -> Iterator[tuple[int, float, dict[str, Tensor]]]:
        return source.replay(backbone, denoiser, rows, names, extraction.extras["noisy"][:, rows], steps)

    def record(put: Put, rows: list[int], step: tuple[int, float, dict[str, Tensor]]) -> None:
        put_activations(put, rows, step[0], step[2])

    found, extras, computed = fill(manifest, run, record, as_stores(stores), batch_size, trainer, tell)
    activations = found.select([layer.name for layer in wanted.layers], wanted.steps)
    return Extraction(source, activations, extras, manifest, computed)


def fill(
    manifest: Manifest,
    run: Callable[[list[int]], Iterator[Any]],
    record: Callable[[Put, list[int], Any], None],
    stores: Stores | None,
    batch_size: int,
    trainer: lightning.Trainer | None,
    tell: Tell,
) -> tuple[Activations | StoredActivations, Any, int]:
    """Computes what is missing; gives activations and extras, in memory or stored, and how many images were run."""
    trainer = trainer or silent_trainer()
    if stores is None:
        if trainer.world_size > 1:
            raise UserError("activations in memory are those of one device; with several, choose features=disk")
        memory = MemoryWriter(manifest)
        rows = range(len(manifest.images))
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        predict(ExtractionModule(run, batch_size, batches, manifest.ids), partial(record, memory.put), trainer, tell)
        return memory.activations, memory.extras, len(rows)
    store = create_store(stores.folder / manifest_folder(manifest), manifest)
    with _turn(store, trainer, tell):
        share = _share(store, trainer)
        if share or trainer.world_size > 1:
            with StoreWriter(store) as writer:
                module = ExtractionModule(run, batch_size, share, manifest.ids)
                predict(module, partial(record, writer.put), trainer, tell)
            trainer.strategy.barrier("activations stored")
    stored = StoredActivations(store)
    own = torch.tensor(sum(map(len, share)), device=trainer.strategy.root_device)
    return stored, stored.extras, int(trainer.strategy.reduce(own, reduce_op="sum"))


def _turn(store: Store, trainer: lightning.Trainer, tell: Tell) -> AbstractContextManager[None]:
    """Waits until nobody else fills the store. The first of several processes stands for all of its run; a finished
    store is nobody's turn."""
    if trainer.global_rank > 0 or not store.survey().unfinished:
        return nullcontext()
    return taking_turns(store.folder, tell)


def _share(store: Store, trainer: lightning.Trainer) -> list[range]:
    """The unfinished shards of this process: by their place in the store, so that processes need not agree on the rest.

    A process of several that finds nothing to do still takes part, since Lightning's processes wait for each other.
    """
    unfinished = set(store.survey().unfinished)
    own = store.shards[trainer.global_rank :: trainer.world_size]
    return [shard.rows for shard in own if shard in unfinished]


def silent_trainer() -> lightning.Trainer:
    """One device, no progress bar, no files. The backbone is where it is; only the processes are the trainer's."""
    return lightning.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, devices=1, accelerator="cpu"
    )


def predict(
    module: ExtractionModule,
    record: Callable[[list[int], Any], None],
    trainer: lightning.Trainer,
    tell: Tell,
) -> None:
    """Runs the module's batches; `record` takes (rows, step) as they are computed, `tell` the time for the rest."""
    images = sum(len(rows) for rows in module.batches)
    recorder: Any = _Recorder(record, images, tell)
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Couldn't infer the batch indices")  # rows come with the batches
            warnings.filterwarnings("ignore", message=".*has `__len__` defined")  # and are read by no workers
            trainer.predict(module, return_predictions=False)
    finally:
        trainer.callbacks.remove(recorder)  # type: ignore[attr-defined]


def put_activations(put: Put, rows: list[int], step: int, activations: dict[str, Tensor]) -> None:
    for layer, values in activations.items():
        put(tensor_name(layer, step), rows, values)


@torch.no_grad()
def decoded(backbone: Backbone, latents: Tensor) -> Tensor:
    """Latents [batch, channels, h, w] as images [batch, 3, H, W] in [0, 1]; one at a time, so that the batch makes no
    difference. Raises NotFinite as `decode_latents`."""
    return torch.cat(one_at_a_time(partial(decode_latents, backbone), latents))


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""One pass of the frozen network over all images of a source, whose activations are kept, in memory or in a store.

Which activations are kept on disk, and where: more than one study asks for, so that others find theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
from torch import Tensor, nn

from diffprobe.activations.activations import Activations, LayerItems
from diffprobe.activations.description import describe, describe_replay, manifest_folder
from diffprobe.activations.module import ActivationModule, Consumer, ImageBatch, ImageData, quiet_trainer, run_pass
from diffprobe.activations.sources import Source, Steps
from diffprobe.activations.store.folder import Store, create_store, store_lock
from diffprobe.activations.store.manifest import Manifest
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.activations.store.writer import MemoryWriter, StoreWriter
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import at_step, naming_images
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Count, Folder


@dataclass(frozen=True)
class ActivationConfig:
    """How activations are made and kept.

    Attributes:
        store: 'memory', 'disk', or 'none', which uses them while they are computed.
        folder: of stores on disk.
        layers, steps: that a store keeps, as `layers.select` and `steps.select`; None those that are probed.
        images_per_shard: of a store on disk.
        dtype: of stores.
        half: of the guidance batch.
        batch_size: images at once.
    """

    store: Annotated[str, Choice("memory", "disk", "none")] = "memory"
    folder: Folder = "stores"
    layers: Annotated[Any, LayerItems] | None = None
    steps: Annotated[Any, Steps] | None = None
    images_per_shard: Count = 16
    dtype: Annotated[str, Choice("float32", "float16", "bfloat16")] = "float16"
    half: Annotated[str, Choice("conditional", "unconditional")] = "conditional"
    batch_size: Count = 20


@dataclass(frozen=True)
class StoreFolder:
    """A folder of activation stores, and what an extraction keeps there.

    Attributes:
        folder: holds one store for each model, set of images, layers and steps.
        layers, steps: what is kept, in order; None keeps what is asked for. Studies of parts of them share one store.
    """

    folder: Path
    layers: Sequence[Layer] | None = None
    steps: Sequence[int] | None = None

    def stored_layers_and_steps(self, layers: Sequence[Layer], steps: Sequence[int]) -> tuple[list[Layer], list[int]]:
        """What is kept for a study of these layers and steps.

        Raises:
            UserError: some of them are not among what is kept.
        """
        all_layers = list(layers if self.layers is None else self.layers)
        all_steps = list(steps if self.steps is None else self.steps)
        names = {layer.name for layer in all_layers}
        left_out = [layer.name for layer in layers if layer.name not in names]
        if left_out:
            raise UserError(
                f"{len(left_out)} of {len(layers)} layers to probe are not among the {len(names)} of features.layers, "
                f"first {left_out[0]}; add them there, or probe fewer (layers.select)"
            )
        missing = sorted(set(steps) - set(all_steps))
        if missing:
            raise UserError(
                f"steps {missing} are to be probed but are not among features.steps={all_steps}; add them there, or "
                "probe fewer (steps.select)"
            )
        return all_layers, all_steps


def as_store_folder(stores: StoreFolder | Path | None) -> StoreFolder | None:
    """A plain folder as stores that keep what is asked for."""
    return StoreFolder(stores) if isinstance(stores, Path) else stores


Log = Callable[[str], None]


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
    def decode_steps(self, backbone: Backbone, row: int) -> Tensor:
        """One image as it looks after each wanted step, [steps, 3, H, W] in [0, 1]."""
        if not self.source.is_trajectory:
            return self.extras["image"][row].expand(len(self.activations.steps), -1, -1, -1)
        places = [self.manifest.steps.index(step) for step in self.activations.steps]
        found = []
        for place, step in zip(places, self.activations.steps, strict=True):
            latents = self.extras["latents"][place, row].to(backbone.device, backbone.dtype)
            with naming_images([self.activations.names[row]], at_step(step, self.manifest.timesteps[place])):
                found.append(decode_latents(backbone, latents[None]).cpu())
        return torch.cat(found)


def extract(
    backbone: Backbone,
    source: Source,
    layers: Sequence[Layer],
    steps: Sequence[int],
    *,
    batch_size: int = 8,
    dtype: str = "float16",
    stores: StoreFolder | Path | None = None,
    images_per_shard: int = 16,
    trainer: lightning.Trainer | None = None,
    log: Log = lambda line: None,
) -> Extraction:
    """Takes every image of the source through its steps once, and keeps the activations of `layers` at `steps`.

    In memory, or in a store in the folder `stores`, whose name follows from all that determines the activations: what
    is there already is not computed again, and an interrupted extraction goes on where it was. Devices share the
    shards of a store among them; of other processes that want the same store at once, one fills it and the rest wait.
    `StoreFolder` may keep more layers and steps than these, for other studies.

    Args:
        steps: which of the source's steps to keep, in order.
        batch_size: images that are run at once.
        dtype: 'float16', 'bfloat16' or 'float32', of the kept activations.
        images_per_shard: of a new store.
        trainer: brings devices, which the network moves to; without one, it stays where it is, and nothing is shown.
        log: takes a line for people, such as that another process is being waited for.

    Raises:
        UserError: steps that the source does not have, unknown layers, layers or steps that are not among those the
            stores keep, activations that the network or the dtype overflows with, a full or failing disk, or several
            devices without a store.
    """
    where = as_store_folder(stores)
    kept, kept_steps = where.stored_layers_and_steps(layers, steps) if where else (list(layers), list(steps))
    manifest = describe(backbone, source, kept, kept_steps, dtype, images_per_shard, identified=where is not None)
    names = [layer.name for layer in kept]

    make = partial(
        ActivationModule,
        backbone,
        lambda batch: source.run(backbone, batch, names, kept_steps),
        steps=source.steps_taken(backbone, kept_steps),
        images=partial(source.images, backbone),
    )

    load = partial(source.batch, size=backbone.image_size)
    found, extras, computed = fill(manifest, make, load, where, batch_size, trainer, log)
    return Extraction(source, found.select([layer.name for layer in layers], steps), extras, manifest, computed)


def extract_replayed(
    backbone: Backbone,
    denoiser: nn.Module,
    extraction: Extraction,
    called: Mapping[str, Any],
    *,
    batch_size: int = 8,
    stores: StoreFolder | Path | None = None,
    trainer: lightning.Trainer | None = None,
    log: Log = lambda line: None,
) -> Extraction:
    """The same activations, without extras, of another denoiser that is shown the same noisy latents and prompts.

    Args:
        called: what determines that denoiser, see `describe_replay`.
    """
    source, wanted = extraction.source, extraction.activations
    manifest = describe_replay(extraction.manifest, called)
    steps = manifest.steps
    names = [layer.name for layer in manifest.layers]

    noisy = extraction.extras["noisy"]
    make = partial(
        ActivationModule,
        backbone,
        lambda batch: source.replay(backbone, denoiser, batch, names, noisy[:, batch.rows], steps),
        steps=len(steps),
        networks={"control": denoiser},
    )

    load = source.batch if source.is_trajectory else partial(source.batch, size=backbone.image_size)
    found, extras, computed = fill(manifest, make, load, as_store_folder(stores), batch_size, trainer, log)
    activations = found.select([layer.name for layer in wanted.layers], wanted.steps)
    return Extraction(source, activations, extras, manifest, computed)


def fill(
    manifest: Manifest,
    make: Callable[[Consumer], ActivationModule],
    load: Callable[[list[int]], ImageBatch],
    stores: StoreFolder | None,
    batch_size: int,
    trainer: lightning.Trainer | None,
    log: Log,
) -> tuple[Activations | StoredActivations, Any, int]:
    """Computes what is missing of what a manifest describes.

    Args:
        make: the module that computes it, with the consumer that keeps it.
        load: the batch of some rows.

    Returns:
        Activations and extras, in memory or stored, and how many images were run by all processes.
    """
    if stores is None:
        if trainer is not None and trainer.world_size > 1:
            raise UserError("activations in memory are those of one device; with several, choose features=disk")
        memory = MemoryWriter(manifest)
        data = ImageData(load, [range(len(manifest.images))], batch_size)
        computed = run_pass(make(memory), data, trainer)
        return memory.activations, memory.extras, computed
    store = create_store(stores.folder / manifest_folder(manifest), manifest)
    module = make(StoreWriter(store))
    trainer = trainer or quiet_trainer(module.device)
    computed = 0
    with _store_lock(store, trainer, log):
        unfinished = [shard.rows.start for shard in store.survey().unfinished]
        data = ImageData(load, [shard.rows for shard in store.shards], batch_size, unfinished=unfinished)
        if data.share(trainer.global_rank, trainer.world_size) or trainer.world_size > 1:
            computed = run_pass(module, data, trainer)
            trainer.strategy.barrier("activations stored")
    stored = StoredActivations(store)
    own = torch.tensor(computed, device=trainer.strategy.root_device)
    return stored, stored.extras, int(trainer.strategy.reduce(own, reduce_op="sum"))


def _store_lock(store: Store, trainer: lightning.Trainer, log: Log) -> AbstractContextManager[None]:
    """Waits until nobody else fills the store. The first of several processes stands for all of its run, which take
    part even where they find nothing to do, since Lightning's processes wait for each other; a finished store is
    nobody's turn."""
    if trainer.global_rank > 0 or not store.survey().unfinished:
        return nullcontext()
    return store_lock(store.folder, log)

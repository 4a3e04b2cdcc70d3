"""Passes of the frozen network over the images of a source: activations kept in memory or in a store, or streamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import lightning
import torch
from torch import Tensor, nn

from diffprobe.activations.activations import Activations, LayerItems
from diffprobe.activations.module import (
    ActivationBatch,
    ActivationModule,
    Consumer,
    ImageBatch,
    ImageData,
    StackedSteps,
    WholeBatches,
    quiet_trainer,
    run_pass,
)
from diffprobe.activations.sources import Source, Steps
from diffprobe.activations.store.folder import create_store, store_lock
from diffprobe.activations.store.manifest import Manifest, describe, describe_replay, manifest_folder
from diffprobe.activations.store.reader import StoredActivations
from diffprobe.activations.store.writer import MemoryWriter, StoreWriter
from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import at_step, naming_images
from diffprobe.backbone.layers import Layer
from diffprobe.backbone.load import Backbone
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Count, Folder

Log = Callable[[str], None]


@dataclass(frozen=True)
class ActivationConfig:
    """How activations are computed and kept.

    Attributes:
        store: 'memory', 'disk', or 'none', which uses them while they are computed.
        folder: of stores on disk.
        layers, steps: that a store keeps, as `layers.select` and `steps.select`; None means those that are probed.
        images_per_shard: of a store on disk.
        dtype: of kept activations.
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
    """A folder with one store for each model, set of images, layers and steps.

    Attributes:
        layers, steps: what stores keep, in order, so that studies of parts of them share one; None means what a study
            asks for.
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
        missing_layers = [layer.name for layer in layers if layer.name not in names]
        if missing_layers:
            raise UserError(
                f"{len(missing_layers)} of {len(layers)} layers to probe are not among the {len(names)} of "
                f"features.layers, first {missing_layers[0]}; add them there, or probe fewer (layers.select)"
            )
        missing_steps = sorted(set(steps) - set(all_steps))
        if missing_steps:
            raise UserError(
                f"steps {missing_steps} are to be probed but are not among features.steps={all_steps}; add them there, "
                "or probe fewer (steps.select)"
            )
        return all_layers, all_steps


@dataclass(frozen=True)
class Extraction:
    """The result of one pass over the images of a source.

    Attributes:
        activations: of the wanted layers at the wanted steps.
        extras: `image` [images, 3, H, W] in [0, 1], generated or real; `noisy` [steps, images, channels, h, w], the
            denoiser's input latents; of trajectories `latents`, the same after each step. Tensors or, on disk, what is
            indexed like them, by [rows] or [:, rows]. Their steps are those of the manifest.
        manifest: of all that is kept, which may be more layers and steps than the wanted ones.
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
        """One image decoded after each wanted step, [steps, 3, H, W] in [0, 1]."""
        if not self.source.is_trajectory:
            return self.extras["image"][row].expand(len(self.activations.steps), -1, -1, -1)
        decoded = []
        for step in self.activations.steps:
            index = self.manifest.steps.index(step)
            latents = self.extras["latents"][index, row].to(backbone.device, backbone.dtype)
            with naming_images([self.activations.names[row]], at_step(step, self.manifest.timesteps[index])):
                decoded.append(decode_latents(backbone, latents[None]).cpu())
        return torch.cat(decoded)


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

    A store is named by all that determines its activations: what it has is not computed again, and an interrupted
    extraction is resumed. Devices share the shards of a store; of several processes that want one store, one fills it
    and the others wait.

    Args:
        stores: where to keep activations; None means in memory.
        trainer: brings devices, which the network moves to; None leaves it where it is, and shows nothing.
        log: takes a line for people, such as that another process is being waited for.

    Raises:
        UserError: steps that the source does not have, layers or steps that the stores do not keep, activations that
            overflow the network's dtype or the stored one, a full or failing disk, or several devices without a store.
    """
    stores = as_store_folder(stores)
    stored = stores.stored_layers_and_steps(layers, steps) if stores else (list(layers), list(steps))
    manifest = describe(backbone, source, *stored, dtype, images_per_shard, identified=stores is not None)
    names, stored_steps = [layer.name for layer in manifest.layers], manifest.steps
    make = partial(
        ActivationModule,
        backbone,
        lambda batch: source.run(backbone, batch, names, stored_steps),
        steps=source.steps_taken(backbone, stored_steps),
        images=partial(source.images, backbone),
    )
    load = partial(source.batch, size=backbone.image_size)
    found, extras, computed = fill(manifest, make, load, stores, batch_size, trainer, log)
    return Extraction(source, found.select([layer.name for layer in layers], steps), extras, manifest, computed)


def extract_replayed(
    backbone: Backbone,
    denoiser: nn.Module,
    extraction: Extraction,
    control: Mapping[str, Any],
    *,
    batch_size: int = 8,
    stores: StoreFolder | Path | None = None,
    trainer: lightning.Trainer | None = None,
    log: Log = lambda line: None,
) -> Extraction:
    """Activations of another denoiser for the noisy latents and prompts of an extraction, without extras.

    Args:
        control: what determines that denoiser, see `describe_replay`.
    """
    source, wanted = extraction.source, extraction.activations
    manifest = describe_replay(extraction.manifest, control)
    steps, names = manifest.steps, [layer.name for layer in manifest.layers]
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


def as_store_folder(stores: StoreFolder | Path | None) -> StoreFolder | None:
    """A plain folder as one whose stores keep what is asked for."""
    return StoreFolder(stores) if isinstance(stores, Path) else stores


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
    # The first process of a run locks the store for all of them; a finished store needs no lock
    locks = trainer.global_rank == 0 and store.survey().unfinished
    with store_lock(store.folder, log) if locks else nullcontext():
        unfinished = [shard.rows.start for shard in store.survey().unfinished]
        data = ImageData(load, [shard.rows for shard in store.shards], batch_size, unfinished=unfinished)
        # All processes take part, even with nothing to do, since Lightning's processes wait for each other
        if data.share(trainer.global_rank, trainer.world_size) or trainer.world_size > 1:
            computed = run_pass(module, data, trainer)
            trainer.strategy.barrier("activations stored")
    stored = StoredActivations(store)
    own = torch.tensor(computed, device=trainer.strategy.root_device)
    return stored, stored.extras, int(trainer.strategy.reduce(own, reduce_op="sum"))


def stream_batches(
    backbone: Backbone,
    source: Source,
    layers: Sequence[str],
    steps: Sequence[int],
    rows: Sequence[int],
    consume: Callable[[ActivationBatch], None],
    *,
    batch_size: int,
    networks: Mapping[str, nn.Module] = MappingProxyType({}),
    trainer: lightning.Trainer | None = None,
) -> None:
    """Takes some images through their steps once, and hands their activations to `consume` a batch at a time.

    Args:
        rows: in this order; processes share them.
        networks: others that `consume` evaluates.

    Raises:
        UserError: a process would have no image, or an image is not finite.
    """
    processes = trainer.world_size if trainer else 1
    if len(rows) < processes:
        raise UserError(f"{len(rows)} images of a part of the split cannot be shared by {processes} processes")
    module = ActivationModule(
        backbone,
        lambda batch: source.run(backbone, batch, layers, steps),
        WholeBatches(steps, consume),
        steps=source.steps_taken(backbone, steps),
        images=partial(source.images, backbone),
        networks=networks,
    )
    shares = [rows[process::processes] for process in range(processes)]
    run_pass(module, ImageData(partial(source.batch, size=backbone.image_size), shares, batch_size), trainer)


def replay_activations(
    backbone: Backbone,
    source: Source,
    denoiser: nn.Module,
    layers: Sequence[str],
    steps: Sequence[int],
    replayed: ActivationBatch,
) -> dict[str, Tensor]:
    """Activations of another denoiser for the noisy latents of a batch, {layer: [steps, batch, channels, h, w]}."""
    stacked = StackedSteps(len(steps))
    for step in source.replay(backbone, denoiser, replayed.batch, layers, replayed.noisy, steps):
        stacked.add(step.activations)
        del step  # as in `ActivationModule.predict_step`
    return stacked.tensors

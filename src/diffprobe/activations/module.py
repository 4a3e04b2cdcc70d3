"""The LightningModule that owns the frozen network, and the pass that `Trainer.predict` makes with it.

What takes activations as they are made: a store, memory, the sums of ridge probes, the pooling of prototypes.

Batches of images for the frozen network: prompts and seeds, or real images and the masks of their objects.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import lightning
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

from diffprobe.activations.progress import PassProgress
from diffprobe.backbone.finite import naming_images
from diffprobe.backbone.load import Backbone, FrozenNetworks, chosen_device
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError

if TYPE_CHECKING:
    from diffprobe.backbone.trajectory import TrajectoryStep


class Consumer(Protocol):
    """Is handed each step of each batch as it is computed.

    Only this process's images come, batch after batch, and the steps of a batch in order. The tensors are the
    consumer's own: it may keep them, and what it does not keep is freed before the next step is computed. What a
    consumer has no use for, it need not define.
    """

    def open(self) -> None:
        """Called before the first batch."""

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        """Takes one step of a batch: `step.activations[layer]` is [batch, channels, height, width]."""

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        """Called after the last step of a batch, with the images as they have become, [batch, 3, H, W] in [0, 1];
        None where nobody asked the module for them."""

    def close(self, error: BaseException | None) -> None:
        """Called once, after the last batch, or with the error that ended the pass."""


class ConsumerCallback(lightning.Callback):
    """Opens the consumer of an `ActivationModule` before the first batch, and closes it whatever happens."""

    def __init__(self) -> None:
        self._open = False

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._open = True
        pl_module.consumer.open()

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._close(pl_module, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close(pl_module, exception)

    def _close(self, module: Any, error: BaseException | None) -> None:
        if self._open:
            self._open = False
            module.consumer.close(error)


class ImageBatch(NamedTuple):
    """Some images of a source.

    Attributes:
        rows: their numbers in the source.
        names: their ids.
        prompts: what the network is told of each.
        seeds: of each one's noise.
        images: real images [batch, 3, H, W] in [0, 1], on the CPU; None where the network makes them.
        masks: of each image's objects, [objects, H, W], where objects are asked for.
    """

    rows: list[int]
    names: list[str]
    prompts: list[str]
    seeds: list[int]
    images: Tensor | None = None
    masks: list[Tensor] | None = None


class ImageData(lightning.LightningDataModule):
    """Batches of this process's share of the images.

    Images are shared by whole shards, the k-th to process k, k + processes, ..., whatever is done already, so that
    processes need not agree on the rest. A batch holds images of one shard.

    Args:
        load: makes a batch of row numbers (`Source.batch`); called when the batch is wanted, so one batch is held.
        shards: rows of images that belong together.
        batch_size: images at once, at most.
        unfinished: the first row of each shard that is to be done; None means all of them.
        masks: of a row's objects, [objects, H, W], for batches with objects.
    """

    def __init__(
        self,
        load: Callable[[list[int]], ImageBatch],
        shards: Sequence[Sequence[int]],
        batch_size: int,
        *,
        unfinished: Collection[int] | None = None,
        masks: Callable[[int], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a process may find nothing left to do
        self.load, self.shards, self.batch_size, self.masks = load, shards, batch_size, masks
        self.unfinished = unfinished
        self.batches: list[list[int]] = []

    @property
    def images(self) -> int:
        """How many images are this process's to do; known after `setup`."""
        return sum(map(len, self.batches))

    def share(self, rank: int, processes: int) -> list[Sequence[int]]:
        """The shards that process `rank` of several has to do."""
        own = self.shards[rank::processes]
        return [rows for rows in own if len(rows) and (self.unfinished is None or rows[0] in self.unfinished)]

    def setup(self, stage: str) -> None:
        assert self.trainer is not None
        self.batches = [
            list(rows[start : start + self.batch_size])
            for rows in self.share(self.trainer.global_rank, self.trainer.world_size)
            for start in range(0, len(rows), self.batch_size)
        ]

    def predict_dataloader(self) -> Batches:
        return Batches(self)

    def transfer_batch_to_device(self, batch: ImageBatch, device: Any, dataloader_idx: int) -> ImageBatch:
        """Leaves images and masks on the CPU: images go to the device one at a time, as the VAE takes them."""
        return batch


class Batches:
    """The batches of an `ImageData`, loaded one by one. No DataLoader, so that Lightning does not distribute what is
    distributed already."""

    def __init__(self, data: ImageData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.batches)

    def __iter__(self) -> Iterator[ImageBatch]:
        for rows in self.data.batches:
            batch = self.data.load(rows)
            masks = self.data.masks
            yield batch if masks is None else batch._replace(masks=[masks(row) for row in rows])


class ActivationModule(lightning.LightningModule):
    """The frozen denoiser, its VAE and text encoders, and what is done with the activations of some layers.

    `predict_step` takes a batch of images through its steps and hands each step to the consumer as it is made, so
    memory holds one step of one batch. The networks are submodules, which the Trainer places; they stay in eval mode
    without gradients, and no checkpoint contains them. What they compute in is the model's own setting (`dtype`,
    `autocast`), part of what a store of activations is named by, so a Trainer of another precision is refused.

    Args:
        run: takes a batch through its steps, such as a source's `run`.
        steps: how many steps `run` takes each image through, for the progress bar.
        consumer: takes the steps.
        images: the images [batch, 3, H, W] of a batch after its last step, from the latents after it; None makes none.
        networks: others that `run` or the consumer evaluates, such as a control network, by name.
    """

    def __init__(
        self,
        backbone: Backbone,
        run: Callable[[ImageBatch], Iterator[TrajectoryStep]],
        consumer: Consumer,
        *,
        steps: int,
        images: Callable[[ImageBatch, Tensor], Tensor] | None = None,
        networks: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.strict_loading = False  # a checkpoint has nothing of the frozen networks
        self.networks = FrozenNetworks({**backbone.networks, **networks})
        self.to(backbone.device)
        self.run, self.steps, self.consumer, self.images = run, steps, consumer, images
        self.progress = PassProgress(0, steps)

    def configure_callbacks(self) -> list[lightning.Callback]:
        return [ConsumerCallback()]

    def setup(self, stage: str) -> None:
        """Raises UserError for a Trainer that would change what the networks compute in, or leave images out."""
        if stage != "predict":
            return
        data: ImageData = self.trainer.datamodule  # type: ignore[attr-defined]
        self.progress = PassProgress(data.images, self.steps)
        if type(self.trainer.precision_plugin) is not Precision:
            raise UserError(
                f"precision={self.trainer.precision} of the trainer would change the activations of the frozen "
                "network: give its pass a trainer of precision 32-true, which leaves it as it is, and choose "
                "model.dtype or model.autocast for the network itself"
            )
        limit = self.trainer.limit_predict_batches
        if isinstance(limit, int) or limit < 1:
            raise UserError(
                f"the trainer would take {limit} of the batches of images (fast_dev_run or limit_predict_batches), and "
                "what is computed of images has to be whole: ask for fewer images instead (data.count, objects.count)"
            )

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> int:
        """Takes a batch through its steps; the number of its images."""
        self.progress.begin(len(batch.rows))
        with naming_images(batch.names):
            latents = torch.empty(0)
            for step in self.run(batch):
                self.consumer.consume(batch, step)
                self.progress.step += 1
                latents = step.latents
                del step  # its activations must be gone before the next are made
            self.consumer.finish(batch, None if self.images is None else self.images(batch, latents))
        self.progress.end()
        return len(batch.rows)


def run_pass(module: ActivationModule, data: ImageData, trainer: lightning.Trainer | None = None) -> int:
    """Takes this process's images through the module once, and leaves its networks on the trainer's device.

    Args:
        trainer: None makes a quiet one for the device that the networks are on.

    Returns:
        How many images this process took through.

    Raises:
        UserError: as `ActivationModule.setup`, as the consumer, or an image is not finite.
    """
    trainer = trainer or quiet_trainer(module.device)
    with quiet_lightning(trainer.progress_bar_callback is None):
        trainer.predict(module, datamodule=data, return_predictions=False)
    module.networks.to(trainer.strategy.root_device)  # Lightning leaves modules on the CPU
    return module.progress.done


def quiet_trainer(device: torch.device) -> lightning.Trainer:
    """A Trainer for one device that shows nothing and writes nothing."""
    with quiet_lightning(everything=True):
        return lightning.Trainer(
            accelerator=device.type,
            devices=1 if device.index is None or device.type == "cpu" else [device.index],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


@contextmanager
def quiet_lightning(everything: bool) -> Iterator[None]:
    """Inside: no warnings that nobody can act on; with `everything`, no notices either."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
        if everything:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def device_of_model(wanted: str, trainer: lightning.Trainer) -> str:
    """Where the network goes: to the device of the trainer that takes images through it.

    Args:
        wanted: `model.device`; 'auto' is that device, whichever it is.

    Raises:
        UserError: `model.device` is another, or none of this machine.
    """
    device = trainer.strategy.root_device
    if wanted != "auto" and chosen_device(wanted) not in (device, torch.device(device.type)):
        raise UserError(
            f"model.device={wanted}, but the trainer works on {device}: leave model.device=auto, and choose the device "
            "with trainer.accelerator (cpu, gpu), and which GPU with CUDA_VISIBLE_DEVICES"
        )
    return str(device)

"""The LightningModule that owns the frozen network, the batches it is given, and the consumers of its activations."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import lightning
import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor, nn

from diffprobe.activations.progress import PassProgress
from diffprobe.backbone.finite import naming_images
from diffprobe.backbone.load import Backbone, FrozenNetworks, chosen_device
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError


class ImageBatch(NamedTuple):
    """Some images of a source.

    Attributes:
        rows: indices in the source.
        images: real images [batch, 3, H, W] in [0, 1], on the CPU; None where the network makes them.
        masks: of each image's objects, [objects, H, W]; None in passes without objects.
    """

    rows: list[int]
    names: list[str]
    prompts: list[str]
    seeds: list[int]
    images: Tensor | None = None
    masks: list[Tensor] | None = None


class Consumer(Protocol):
    """Takes activations as they are computed: batch after batch, and the steps of a batch in order.

    It gets the images of its own process only, and may keep the tensors; others are freed before the next step.
    Every method is optional.
    """

    def open(self) -> None:
        """Called before the first batch."""

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        """Takes one step of a batch: `step.activations[layer]` is [batch, channels, height, width]."""

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        """Called after the last step of a batch with its final images, [batch, 3, H, W] in [0, 1], or None where the
        module does not make them."""

    def close(self, error: BaseException | None) -> None:
        """Called once, after the last batch, or with the error that ended the pass."""


@dataclass(frozen=True)
class ActivationBatch:
    """All steps of a batch of images, on the backbone's device.

    Attributes:
        activations: by layer, at the wanted steps, [steps, batch, channels, h, w].
        noisy, latents: latents before and after each of these steps, [steps, batch, channels, h, w].
        images: final or real images, [batch, 3, H, W] in [0, 1].
    """

    batch: ImageBatch
    activations: dict[str, Tensor]
    noisy: Tensor
    latents: Tensor
    images: Tensor


class StackedSteps:
    """Tensors of one step after another, copied into one tensor each, [steps, ...], so that none is held twice."""

    def __init__(self, steps: int) -> None:
        self.steps, self.filled = steps, 0
        self.tensors: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Takes the tensors of the next step."""
        for name, value in values.items():
            if name not in self.tensors:
                self.tensors[name] = value.new_empty((self.steps, *value.shape))
            self.tensors[name][self.filled] = value
        self.filled += 1


class WholeBatches(Consumer):
    """Collects the wanted steps of a batch and passes them on together, for labels, which need the final image."""

    def __init__(self, wanted: Sequence[int], use: Callable[[ActivationBatch], None]) -> None:
        self.wanted, self.use = wanted, use
        self._begin()

    def _begin(self) -> None:
        self._activations, self._latents = StackedSteps(len(self.wanted)), StackedSteps(len(self.wanted))

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        if step.index in self.wanted:
            self._activations.add(step.activations)
            self._latents.add({"noisy": step.noisy, "latents": step.latents})

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        assert images is not None
        activations, latents = self._activations.tensors, self._latents.tensors
        self._begin()
        self.use(ActivationBatch(batch, activations, latents["noisy"], latents["latents"], images))


class ConsumerCallback(lightning.Callback):
    """Opens the consumer of an `ActivationModule`, and closes it exactly once, also after an error."""

    is_open = False

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self.is_open = True
        pl_module.consumer.open()

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._close(pl_module, None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close(pl_module, exception)

    def _close(self, module: Any, error: BaseException | None) -> None:
        if self.is_open:
            self.is_open = False
            module.consumer.close(error)


class ImageData(lightning.LightningDataModule):
    """Batches of this process's share of the images; each batch lies in one shard and is loaded when it is used.

    Process k of n takes shards k, k + n, ... of all, finished or not, so that processes need not agree on the rest.

    Args:
        load: makes a batch of row numbers, see `Source.batch`.
        shards: rows of images that belong together.
        unfinished: the first row of each shard that is to be done; None means all.
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
        self.batches: list[list[int]] = []  # filled by `setup`

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
    """The batches of an `ImageData`. No DataLoader, which Lightning would distribute a second time."""

    def __init__(self, data: ImageData) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.batches)

    def __iter__(self) -> Iterator[ImageBatch]:
        masks = self.data.masks
        for rows in self.data.batches:
            batch = self.data.load(rows)
            yield batch if masks is None else batch._replace(masks=[masks(row) for row in rows])


class ActivationModule(lightning.LightningModule):
    """The frozen denoiser, its VAE and text encoders, and the consumer of its activations.

    `predict_step` takes a batch of images through its steps and hands each step to the consumer at once, so memory
    holds one step of one batch. The networks are submodules, which the Trainer places; they stay in eval mode without
    gradients, and no checkpoint contains them. Their precision is the model's own setting (`dtype`, `autocast`).

    Args:
        run: takes a batch through its steps, such as a source's `run`.
        steps: how many steps that is for each image, for the progress bar.
        images: makes the final images [batch, 3, H, W] of a batch from its last latents; None makes none.
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

    def cpu(self) -> ActivationModule:
        """Stays where it is. Lightning moves modules to the CPU after a pass, and the next pass would move them back,
        which takes more than a second for Stable Diffusion."""
        return self

    def setup(self, stage: str) -> None:
        """Raises UserError for a Trainer that would change the networks' precision or leave images out."""
        if stage != "predict":
            return
        data: ImageData = self.trainer.datamodule  # type: ignore[attr-defined]
        self.progress = PassProgress(sum(map(len, data.batches)), self.steps)
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
    """Silences Lightning's warnings that nobody can act on; with `everything`, its notices too."""
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
    """The trainer's device, where the network goes.

    Args:
        wanted: `model.device`; 'auto' is the trainer's, whichever it is.

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

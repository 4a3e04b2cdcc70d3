"""Activations that are used while they are computed and never kept: all steps of one batch of images at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import Tensor, nn

from diffprobe.activations.module import ActivationModule, Consumer, ImageBatch, ImageData, run_pass
from diffprobe.activations.sources import Source
from diffprobe.backbone.load import Backbone
from diffprobe.backbone.trajectory import TrajectoryStep
from diffprobe.errors import UserError

if TYPE_CHECKING:
    import lightning


@dataclass(frozen=True)
class ActivationBatch:
    """A batch of images, taken through all their steps, on the backbone's device.

    Attributes:
        batch: which images they are.
        activations: of each layer at the wanted steps, [steps, batch, channels, h, w].
        noisy: what the denoiser was given at these steps, [steps, batch, channels, h, w].
        latents: the same after the step.
        images: as they are at the end, or the real ones, [batch, 3, H, W] in [0, 1].
    """

    batch: ImageBatch
    activations: dict[str, Tensor]
    noisy: Tensor
    latents: Tensor
    images: Tensor


class WholeBatches(Consumer):
    """Hands on each batch once all its steps are there: for labels, which belong to the final image.

    Args:
        wanted: the steps that are held; every batch has them.
        use: takes the batch.
    """

    def __init__(self, wanted: Sequence[int], use: Callable[[ActivationBatch], None]) -> None:
        self.wanted, self.use = wanted, use
        self._begin()

    def _begin(self) -> None:
        self._activations, self._latents = Stacked(len(self.wanted)), Stacked(len(self.wanted))

    def consume(self, batch: ImageBatch, step: TrajectoryStep) -> None:
        if step.index in self.wanted:
            self._activations.add(step.activations)
            self._latents.add({"noisy": step.noisy, "latents": step.latents})

    def finish(self, batch: ImageBatch, images: Tensor | None) -> None:
        assert images is not None
        activations, latents = self._activations.tensors, self._latents.tensors
        self._begin()
        self.use(ActivationBatch(batch, activations, latents["noisy"], latents["latents"], images))


class Stacked:
    """Tensors of one step after another in one tensor each, [steps, ...], so that none of them is held twice."""

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
    """Takes some images of the source through their steps, each once, and hands them to `consume` a batch at a time.

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
    seen: ActivationBatch,
) -> dict[str, Tensor]:
    """What another denoiser's layers say of the very latents that ours saw, [steps, batch, channels, h, w] each."""
    stacked = Stacked(len(steps))
    for step in source.replay(backbone, denoiser, seen.batch, layers, seen.noisy, steps):
        stacked.add(step.activations)
        del step  # as in `ActivationModule.predict_step`
    return stacked.tensors

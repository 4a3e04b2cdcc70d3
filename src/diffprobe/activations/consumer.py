"""What takes activations as they are made: a store, memory, the sums of ridge probes, the pooling of prototypes."""

from __future__ import annotations

from typing import Any, Protocol

import lightning
from torch import Tensor

from diffprobe.activations.batches import ImageBatch
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

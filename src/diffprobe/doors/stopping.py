"""Lightning stops when a signal asks: see `diffprobe.signals`."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from diffprobe.signals import check, inside, listen


class StopWhenAsked(Callback):
    """Keeps the signals ours while a trainer works, and looks after every batch whether one has come.

    Lightning's own handlers only note a SIGTERM and go on, talk to the other processes from within the handler, which
    may be in the middle of another exchange, and answer SIGUSR1 under SLURM with a checkpoint that the next run of
    whatever kind would load.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        _keep()

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        _keep()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        check()

    def on_predict_batch_end(self, *_: Any, **__: Any) -> None:
        check()


def _keep() -> None:
    if inside():
        listen()

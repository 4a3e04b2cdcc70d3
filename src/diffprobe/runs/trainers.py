"""Lightning as the doors use it: its trainers, made of settings, and its silence.

Lightning stops when a signal asks: see `diffprobe.signals`.
"""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from diffprobe.errors import UserError
from diffprobe.signals import check, inside, listen

if TYPE_CHECKING:
    from diffprobe.cli.schema import ProbingSettings, TrainerSettings
    from diffprobe.report.tracking import Tracker


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


def make_trainer(settings: ProbingSettings, stage: str, tracker: Tracker | None) -> Any:
    """The Lightning trainer of a stage, see `Means`; training stages are tracked."""
    import lightning

    from diffprobe.activations.progress import ImageProgressBar

    if not stage.startswith("train"):
        return make_predicting_trainer(settings.trainer)
    return lightning.Trainer(
        **settings.trainer,  # type: ignore[arg-type]
        max_epochs=settings.probe.epochs,
        check_val_every_n_epoch=min(settings.probe.validate_every, settings.probe.epochs),
        num_sanity_val_steps=0,
        logger=tracker.lightning_logger(stage) if tracker else False,
        callbacks=[ImageProgressBar(), StopWhenAsked()],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=50,
    )


def make_predicting_trainer(settings: TrainerSettings) -> Any:
    """The Lightning trainer of a pass over images, through the frozen network.

    `trainer.precision` is that of the probes: what the network computes in is said by model.dtype and model.autocast.
    """
    import lightning

    from diffprobe.activations.progress import ImageProgressBar

    return lightning.Trainer(
        **{**settings, "precision": "32-true"},  # type: ignore[arg-type]  # which leaves a module as it is
        logger=False,
        callbacks=[ImageProgressBar(), StopWhenAsked()],
        enable_checkpointing=False,
        enable_model_summary=False,
    )


def check_trainer(settings: TrainerSettings) -> None:
    """Raises UserError for devices or a precision that this machine does not have."""
    import lightning
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.accelerators.cpu import CPUAccelerator

    cores = max(os.cpu_count() or 1, 2)  # two processes are of use to try what several do
    try:
        made = lightning.Trainer(
            **settings,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in settings.items())  # type: ignore[attr-defined]
        raise UserError(f"Lightning cannot work with {given}: {' '.join(str(error).split())}") from error
    if isinstance(made.accelerator, CPUAccelerator) and settings.devices > cores:
        raise UserError(
            f"trainer.devices={settings.devices}: on CPUs a device is a process, and here are {cores} cores"
        )


def quiet_libraries() -> Any:
    """Inside: no notices about data workers, devices and the like from Lightning and its dependencies."""
    import lightning.pytorch  # noqa: F401  (it sets its log level when it is imported, so before ours)

    stack = ExitStack()
    for name in ("lightning.pytorch", "lightning.fabric"):
        log = logging.getLogger(name)
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    return stack

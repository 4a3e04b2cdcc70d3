"""Lightning trainers made of the settings of a run, without Lightning's notices.

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
from diffprobe.parts import make
from diffprobe.signals import check, inside, listen

if TYPE_CHECKING:
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


def make_trainer(settings: Any, stage: str, tracker: Tracker | None) -> Any:
    """The Lightning trainer of a stage: 'train...', which is tracked, or a pass over images through the frozen network.

    `trainer.precision` is that of the probes: what the network computes in is said by model.dtype and model.autocast.
    """
    from lightning.pytorch.callbacks import ProgressBar
    from lightning.pytorch.loggers.logger import DummyLogger

    callbacks = [make(each) for each in settings.callbacks.values()]
    of_stage: dict[str, Any] = {"precision": "32-true"}  # which leaves a module as it is
    if stage.startswith("train"):
        of_stage = {
            "max_epochs": settings.probe.epochs,
            "check_val_every_n_epoch": min(settings.probe.validate_every, settings.probe.epochs),
            "num_sanity_val_steps": 0,
        }
    return make(
        settings.trainer,
        logger=tracker.training_logger(stage) if tracker and stage.startswith("train") else DummyLogger(),
        callbacks=[*callbacks, StopWhenAsked()],
        enable_progress_bar=any(isinstance(each, ProgressBar) for each in callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        **of_stage,
    )


def check_trainer(settings: Any) -> None:
    """Raises UserError for devices or a precision that this machine does not have, and for callbacks that want more."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.accelerators.cpu import CPUAccelerator

    cores = max(os.cpu_count() or 1, 2)  # two processes are of use to try what several do
    chosen = settings.trainer
    try:
        made = make_trainer(settings, "train", None)
    except (MisconfigurationException, ValueError, RuntimeError, TypeError, ImportError) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in chosen.items() if key != "_target_")
        cause = error.__cause__ or error  # of Hydra, which names the class
        raise UserError(f"Lightning cannot work with {given}: {' '.join(str(cause).split())}") from error
    if isinstance(made.accelerator, CPUAccelerator) and chosen.devices > cores:
        raise UserError(f"trainer.devices={chosen.devices}: on CPUs a device is a process, and here are {cores} cores")


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

"""Lightning trainers made of the settings of a run."""

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
    """Keeps this package's signal handlers while a trainer works, and checks after every batch for a signal.

    Lightning's own handlers only note a SIGTERM and go on, talk to the other processes from within the handler, which
    may be in the middle of another exchange, and answer SIGUSR1 under SLURM with a checkpoint that the next run of
    whatever kind would load.
    """

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if inside():
            listen()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        check()

    on_predict_start = on_train_start
    on_predict_batch_end = on_train_batch_end


def make_trainer(settings: Any, stage: str, tracker: Tracker | None) -> Any:
    """The Lightning trainer of a stage: 'train...', which is tracked, or a pass over images through the frozen network.

    `trainer.precision` is that of the probes: what the network computes in is said by model.dtype and model.autocast.
    """
    from lightning.pytorch.callbacks import ProgressBar
    from lightning.pytorch.loggers.logger import DummyLogger

    callbacks = [make(each) for each in settings.callbacks.values()]
    logger: Any = DummyLogger()
    of_stage: dict[str, Any] = {"precision": "32-true"}  # which leaves a module as it is
    if stage.startswith("train"):
        logger = tracker.training_logger(stage) if tracker else logger
        of_stage = {
            "max_epochs": settings.probe.epochs,
            "check_val_every_n_epoch": min(settings.probe.validate_every, settings.probe.epochs),
            "num_sanity_val_steps": 0,
        }
    return make(
        settings.trainer,
        logger=logger,
        callbacks=[*callbacks, StopWhenAsked()],
        enable_progress_bar=any(isinstance(each, ProgressBar) for each in callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        **of_stage,
    )


def check_trainer(settings: Any) -> None:
    """Raises UserError for what Lightning or this machine cannot do, and for processes that are not commands."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.accelerators.cpu import CPUAccelerator
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

    cores = max(os.cpu_count() or 1, 2)  # two processes are of use to try what several do
    chosen = settings.trainer
    try:
        made = make_trainer(settings, "train", None)
    except (MisconfigurationException, ValueError, RuntimeError, TypeError, ImportError) as error:
        given = " ".join(f"trainer.{key}={value}" for key, value in chosen.items() if key != "_target_")
        cause = error.__cause__ or error  # of Hydra, which names the class
        raise UserError(f"Lightning cannot work with {given}: {' '.join(str(cause).split())}") from error
    if isinstance(made.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={chosen.strategy}: it spawns or forks processes, and each process of a run has to be "
            "started as the whole command; use trainer.strategy=ddp"
        )
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

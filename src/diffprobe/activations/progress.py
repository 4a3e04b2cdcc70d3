"""The progress of a pass over images: how many images and steps are done, and how long the rest will take."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from diffprobe.ranges import Number


@dataclass
class PassProgress:
    """How far a pass of this process is.

    Attributes:
        images: in all; `done` of them are finished.
        steps: of each image.
        batch: images that are being run; `step` of their steps are done.
        began: time by `time.perf_counter`.
    """

    images: int
    steps: int
    done: int = 0
    batch: int = 0
    step: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def share(self) -> float:
        """The share of all steps of all images that is done."""
        whole = self.images * self.steps
        return min(1.0, (self.done * self.steps + self.batch * self.step) / whole) if whole else 1.0

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None before the first step is done."""
        share = self.share
        return (time.perf_counter() - self.began) * (1 - share) / share if share else None

    def begin(self, batch: int) -> None:
        """A batch of so many images begins."""
        self.batch, self.step = batch, 0

    def end(self) -> None:
        """All steps of the batch are done."""
        self.done += self.batch
        self.batch, self.step = 0, 0

    def row(self) -> RenderableType:
        """One line: a bar, images, steps of the batch, and the time left."""
        line = Table.grid(padding=(0, 1))
        left = "" if self.left is None else f"{duration(self.left)} left"
        steps = f"step {self.step}/{self.steps}" if self.batch else ""
        line.add_row(ProgressBar(1.0, self.share, width=30), f"{self.done}/{self.images} images", steps, left)
        return line


class ImageProgressBar(RichProgressBar):
    """Lightning's progress bar, which counts images and steps in a pass over images and shows the time left.

    Without a terminal, one line after the first batch says how long the rest will take.

    Args:
        refresh_rate: drawings of a bar of training in a second, and training may wait for one when it ends; 0 draws
            nothing.
        leave: whether the bars of finished epochs stay.
        log: takes that line; None prints it.
        console: to draw on; None is rich's own.
    """

    def __init__(
        self,
        refresh_rate: Annotated[int, Number(0, 100_000)] = 10,
        leave: bool = False,
        log: Callable[[str], None] | None = None,
        console: Console | None = None,
    ) -> None:
        super().__init__(refresh_rate, leave)
        self.log_line, self.console = log, console
        self._live: Live | None = None

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        console = self.console or get_console()
        if self.is_enabled and console.is_terminal:
            row = pl_module.progress.row
            self._live = Live(get_renderable=row, console=console, refresh_per_second=4, transient=True)
            self._live.start()

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        """Overrides Lightning's own: the module counts."""

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        progress = pl_module.progress
        rest = progress.images - progress.done
        if batch_idx == 0 and rest and self.is_enabled and self._live is None:
            log = self.log_line or (self.console or get_console()).print
            assert progress.left is not None
            log(f"about {duration(progress.left)} for the other {rest} images, by the first {progress.done}")

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._end()
        super().on_exception(trainer, pl_module, exception)

    def _end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def quiet_tqdm(**arguments: Any) -> Any:
    """A bar of tqdm: a widget in notebooks that can show one, else text on stderr."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        from tqdm.auto import tqdm

        return tqdm(**arguments)


class TqdmProgressBar(LightningProgressBar):
    """One bar for a pass over images and one for the epochs of training, by tqdm, which notebooks show as widgets.

    They vanish when they are full.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled, self._bar = True, None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(pl_module.progress.images, "image")

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._reach(pl_module.progress.done)

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._end()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer.max_epochs, "epoch")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._reach(trainer.current_epoch + 1)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._end()

    def _begin(self, total: int, unit: str) -> None:
        if self._enabled:
            self._bar = quiet_tqdm(total=total, unit=unit, leave=False)

    def _reach(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """Seconds in words: '99 s', '2 min', '2.5 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

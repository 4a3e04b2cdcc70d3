"""A callback that holds a run in the middle of its work, until a test lets it go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

PATIENCE = 120.0  # seconds


class Gate(Callback):
    """Waits after a batch of images until there is a file `open` in `folder`; it leaves a file `reached-NAME` there.

    A run that finds its file goes through: it has waited before, and was started again.

    Args:
        name: of the run, where several wait at the same gate.
        after: the batches that go through.

    Raises:
        TimeoutError: nobody has opened it.
    """

    def __init__(self, folder: str, name: str = "run", after: int = 3) -> None:
        self._folder, self._name, self._after = Path(folder), name, after

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        reached = self._folder / f"reached-{self._name}"
        if batch_idx + 1 != self._after or reached.exists() or (self._folder / "open").exists():
            return
        reached.touch()
        deadline = time.monotonic() + PATIENCE
        while not (self._folder / "open").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody has opened {self._folder}")
            time.sleep(0.05)

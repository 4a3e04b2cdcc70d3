"""`analyze.py`'s job: one run told again, or the jobs of a sweep gathered."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from diffprobe.doors.errors import plain_errors
from diffprobe.errors import UserError


@plain_errors
def run(config: DictConfig) -> None:
    """Tells the run in `config.run`, or gathers the sweep in `config.gather`."""
    from rich.console import Console

    from diffprobe.doors import reporting
    from diffprobe.doors.gathering import gather

    if (config.run is None) == (config.gather is None):
        raise UserError("give one of run=FOLDER, a run of train.py, and gather=FOLDER, the folder of a sweep")
    if config.gather is None:
        reporting.run(config)
        return
    gather(Path(config.gather), Console(width=max(Console().width, reporting.REPORT_WIDTH)))

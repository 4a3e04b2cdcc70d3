"""`analyze.py`'s job: a study, one run of `train.py` told again, or the jobs of a sweep gathered."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

from diffprobe.doors.errors import plain_errors
from diffprobe.errors import UserError

# The module of this room that runs each kind of study.
DOORS = {
    "separation": "prototyping",
    "transforms": "prototyping",
    "denoising": "prototyping",
    "video": "prototyping",
    "emergence": "emerging",
    "intervention": "intervening",
    "classification": "classifying",
    "compare": "comparing_runs",
}


def run(config: DictConfig) -> None:
    """Tells the run in `config.run`, gathers the sweep in `config.gather`, or runs the study that `analysis` names."""
    if config.run is None and config.gather is None:
        import_module(f"diffprobe.doors.{_door(config)}").run(config)
    else:
        _tell(config)


@plain_errors
def _door(config: DictConfig) -> str:
    kind = config.analysis.kind
    if kind not in DOORS:
        raise UserError(f"analysis.kind={kind}: choose one of {', '.join(DOORS)}")
    return DOORS[kind]


@plain_errors
def _tell(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from rich.console import Console

    from diffprobe.doors import reporting
    from diffprobe.doors.gathering import gather

    made = Path(HydraConfig.get().runtime.output_dir)  # for a study, before it was known that this is none
    for folder in (made, made.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    if config.run is not None and config.gather is not None:
        raise UserError("give one of run=FOLDER, a run of train.py, and gather=FOLDER, the folder of a sweep")
    if config.gather is None:
        reporting.run(config)
        return
    gather(Path(config.gather), Console(width=max(Console().width, reporting.REPORT_WIDTH)))

"""`analyze.py`'s job: a study, one run of `train.py` told again, or the jobs of a sweep gathered."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from diffprobe.cli.errors import job_errors, plain_errors
from diffprobe.cli.running import carry_out
from diffprobe.errors import UserError
from diffprobe.parts import make
from diffprobe.runs.settings import check_analysis
from diffprobe.terminal import plain_console


def run(config: DictConfig) -> None:
    """Tells the run in `config.run`, gathers the sweep in `config.gather`, or runs the study that `analysis` names."""
    if config.get("run") is None and config.get("gather") is None:
        job_errors(carry_out)(config, check_analysis, lambda settings: make(settings.analysis))
    else:
        _tell(config)


@plain_errors
def _tell(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from diffprobe.cli import retelling
    from diffprobe.cli.gathering import gather

    made = Path(HydraConfig.get().runtime.output_dir)  # for a study, before it was known that this is none
    for folder in (made, made.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    settings = check_analysis(config)
    if settings.run is not None and settings.gather is not None:
        raise UserError("give one of run=FOLDER, a run of train.py, and gather=FOLDER, the folder of a sweep")
    if settings.run is not None:
        retelling.rebuild_report(Path(settings.run), settings.seed)
    elif settings.gather is not None:
        gather(Path(settings.gather), plain_console(retelling.REPORT_WIDTH))

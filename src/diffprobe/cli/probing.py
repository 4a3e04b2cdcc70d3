"""`train.py`'s job: what probes find in the activations of a diffusion model."""

from __future__ import annotations

from omegaconf import DictConfig

from diffprobe.analyses.probing.analysis import Probing
from diffprobe.cli.errors import job_errors
from diffprobe.cli.running import carry_out
from diffprobe.parts import make
from diffprobe.runs.folder import objective_of
from diffprobe.runs.settings import ProbingSettings, checked


@job_errors
def run(config: DictConfig) -> float | None:
    """Runs the study that `config` asks for, into Hydra's output folder; a folder that has it already is left alone.

    Returns:
        What a search maximises, see `objective`; None for a dry run and for the helping processes of a run.
    """
    finished = carry_out(config, checked, _probing)
    return None if finished is None else objective_of(finished)


def _probing(settings: ProbingSettings) -> Probing:
    report = make(settings.report)
    return Probing(report.learning_curve, report.published)

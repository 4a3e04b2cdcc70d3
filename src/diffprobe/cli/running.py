"""What every job has around its own work: settings checked, a folder found free, a tracked run, and its end.

Tells a finished run again from its tables: `analyze.py`'s job.

`train.py`'s job: what probes find in the activations of a diffusion model.

`analyze.py`'s job: a study, one run of `train.py` told again, or the jobs of a sweep gathered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffprobe.analyses.objects import ObjectAnalysis
from diffprobe.analyses.probing.analysis import Probing
from diffprobe.cli.errors import job_errors, plain_errors
from diffprobe.cli.keys import check_typed
from diffprobe.errors import UserError
from diffprobe.parts import class_name, make
from diffprobe.runs.folder import (
    FINISHED,
    check_unfinished,
    clear,
    is_finished,
    objective_of,
    record_configuration,
    run_lock,
)
from diffprobe.runs.processes import by_joblib, check_processes, processes_at_once
from diffprobe.runs.recorded import CONFIGURATION, read_recorded
from diffprobe.runs.settings import ProbingSettings, check_analysis, checked
from diffprobe.runs.trainers import check_trainer, make_trainer, quiet_libraries
from diffprobe.signals import Stopped
from diffprobe.signals import check as stop_if_asked
from diffprobe.terminal import plain_console
from diffprobe.threads import share_threads

if TYPE_CHECKING:
    from rich.console import Console

    from diffprobe.analyses.analysis import Analysis, RunContext
    from diffprobe.report.tracking import RunName, Tracker


REPORT_WIDTH = 100  # columns; fewer would cut the closing table's numbers


def rebuild_report(folder: Path, seed: int) -> None:
    """Reads the scores in `folder`, compares, prints the closing table, and writes tables and figures anew.

    Raises:
        UserError: the folder is not there, or holds no run of train.py.
    """
    from diffprobe.analyses.probing.learning_curve import read_learning_curve
    from diffprobe.analyses.probing.report import report
    from diffprobe.probes.score_table import read_scores
    from diffprobe.probes.summaries import summarise
    from diffprobe.report.publish import draw_figures, print_report, write_tables

    if not folder.is_dir():
        raise UserError(f"run={folder}: there is no such folder; give a run folder that train.py made")
    if (folder / CONFIGURATION).is_file() and "analysis" in read_recorded(folder):
        raise UserError(
            f"run={folder} is an analysis, told already in its report.txt and report.html; run= tells a run of train.py"
        )
    learned = folder / "learning_curve.csv"
    more = {"learning_curve": read_learning_curve(learned)} if learned.exists() else {}
    scores = read_scores(folder)
    found = report(scores, summarise(scores), seed=seed, more=more)
    found = replace(found, tables={name: table for name, table in found.tables.items() if name != "scores"})
    write_tables(found, folder)
    figures = draw_figures(found, folder / "figures")
    console = plain_console(REPORT_WIDTH)
    print_report(found, console)
    best = folder / "tables" / "best_layers.md"
    console.print(f"{len(figures)} figures in {folder / 'figures'}, best layers in {best}", soft_wrap=True)


Job = TypeVar("Job", bound=ProbingSettings)


@dataclass(frozen=True)
class Run(Generic[Job]):
    """A run on its way. `config` is the composed configuration as plain values."""

    settings: Job
    config: Any
    folder: Path
    console: Console
    tracker: Tracker

    @property
    def reproduce(self) -> list[tuple[str, str]]:
        """How to make it again, as (what, answer)."""
        from diffprobe.runs.environment import reproduce

        return reproduce(self.folder, {"seed": self.settings.seed})


def carry_out(
    config: DictConfig, check: Callable[[DictConfig], Job], analysis_of: Callable[[Job], Analysis]
) -> Path | None:
    """Runs an analysis into Hydra's output folder: checked, planned, run, and its report published.

    A folder that has the finished run of the same settings is left alone.

    Args:
        check: makes settings of the configuration.
        analysis_of: the analysis that the settings ask for.

    Returns:
        The folder of the finished run; None of a dry run, and in a helping process.

    Raises:
        UserError: of what the user got wrong, before any work is done.
    """
    from diffprobe.report.publish import publish
    from diffprobe.report.tracking import Tracker
    from diffprobe.runs.environment import write_environment

    started = time.perf_counter()
    hydra = HydraConfig.get()
    check_typed(config, hydra)
    settings = check(config)
    analysis = analysis_of(settings)
    check_processes(settings.trainer, hydra)
    if not analysis.distributed and settings.trainer.devices * settings.trainer.num_nodes > 1:
        raise UserError(f"analysis={analysis_name(settings)} runs in one process; use trainer.devices=1")
    share_threads(processes_at_once(settings.trainer, hydra), chosen_by_joblib=by_joblib(hydra))
    folder = Path(hydra.runtime.output_dir)
    with _resume_hint(analysis, settings, folder, hydra), quiet_libraries():
        from lightning.pytorch.utilities import rank_zero_only

        helping = rank_zero_only.rank > 0  # one of several processes: it shares the work, and the first one reports
        console = plain_console(REPORT_WIDTH, quiet=helping)
        if is_finished(folder, settings, check):
            return _skipped(folder, console)
        check_unfinished(folder, settings, check)
        check_trainer(settings)
        task = _check(analysis, settings, console)
        if settings.dry_run:
            return None
        if helping:
            analysis.run(task, _context(settings, console, None))
            return None
        with run_lock(folder, console.print):
            if is_finished(folder, settings, check):  # by another process, while this one prepared
                return _skipped(folder, console)
            check_unfinished(folder, settings, check)
            clear(folder)
            record_configuration(folder, config, hydra)
            plain: Any = OmegaConf.to_container(config, resolve=True)
            name = _run_name(folder, analysis_name(settings), hydra)
            with Tracker(settings.logger, folder, plain, name) as tracker:
                context = _context(settings, console, tracker)
                report = analysis.report(task, analysis.run(task, context), context)
                publish(report, Run(settings, plain, folder, console, tracker))
                stop_if_asked()
            wall = time.perf_counter() - started
            # The file that marks the run as finished: the last one, when tracker and tables are complete
            seeds = {"seed": settings.seed}
            write_environment(folder / FINISHED, seeds=seeds, wall_seconds=wall, network_evaluations=report.evaluations)
        console.print(f"run folder: {folder} ({wall:.0f} s)", soft_wrap=True)
    return folder


def _check(analysis: Analysis, settings: Any, console: Console) -> Any:
    """The validated inputs of an analysis; prints its plan, in full if the run is dry."""
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.runs.folder import read_settings

    log = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    task = analysis.check(Inputs(settings, log, read_settings))
    plan = analysis.plan(task)
    for line in (*plan.summary, *(plan.details if settings.dry_run else ())):
        log(line)
    return task


def _context(settings: Any, console: Console, tracker: Tracker | None) -> RunContext:
    from diffprobe.analyses.analysis import RunContext

    log = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    return RunContext(settings.seed, partial(make_trainer, settings, tracker=tracker), log, partial(_progress, console))


@contextmanager
def _progress(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that counts to `total`."""
    from rich.progress import Progress

    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda done: progress.update(bar, completed=done)


def _skipped(folder: Path, console: Console) -> Path:
    console.print(f"skipped, since it is finished: {folder}", soft_wrap=True)
    return folder


@contextmanager
def _resume_hint(analysis: Analysis, settings: Any, folder: Path, hydra: Any) -> Iterator[None]:
    """Adds to a signal that stops the run what a person can do then."""
    try:
        yield
    except Stopped as stopped:
        kept = _resume_folder(analysis, settings)
        goes_on = f"goes on from what is kept in {kept}" if kept else "begins again, since nothing is kept on disk"
        place = f"hydra.sweep.dir={hydra.sweep.dir}" if hydra.mode.name == "MULTIRUN" else f"hydra.run.dir={folder}"
        done = (folder / FINISHED).exists()
        stopped.hint = stopped.hint or (f"{folder} is finished" if done else f"the same command with {place} {goes_on}")
        raise


def _resume_folder(analysis: Analysis, settings: Any) -> str | None:
    """The folder that an interrupted run finds its work in, if any."""
    if isinstance(analysis, ObjectAnalysis):  # which keeps prototypes
        return settings.prototypes.folder
    return settings.features.folder if settings.features.store == "disk" else None


def analysis_name(settings: Any) -> str:
    """What a run studies: the name of its analysis' class, in small letters; 'probing' without one."""
    analysis = OmegaConf.select(settings, "analysis")
    return "probing" if analysis is None else class_name(analysis)


def _run_name(folder: Path, kind: str, hydra: Any) -> RunName:
    from diffprobe.report.tracking import RunName

    place = folder.resolve()
    group = Path(hydra.sweep.dir).resolve().name if hydra.mode.name == "MULTIRUN" else None
    return RunName(kind, f"{place.parent.name}/{place.name}", group)


@job_errors
def run_probing(config: DictConfig) -> float | None:
    """Runs the study that `config` asks for, into Hydra's output folder; a folder that has it already is left alone.

    Returns:
        What a search maximises, see `objective`; None for a dry run and for the helping processes of a run.
    """
    finished = carry_out(config, checked, _probing)
    return None if finished is None else objective_of(finished)


def _probing(settings: ProbingSettings) -> Probing:
    report = make(settings.report)
    return Probing(report.learning_curve, report.published)


def run_analysis(config: DictConfig) -> None:
    """Tells the run in `config.run`, gathers the sweep in `config.gather`, or runs the study that `analysis` names."""
    if config.get("run") is None and config.get("gather") is None:
        job_errors(carry_out)(config, check_analysis, lambda settings: make(settings.analysis))
    else:
        _tell(config)


@plain_errors
def _tell(config: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from diffprobe.cli.gathering import gather

    made = Path(HydraConfig.get().runtime.output_dir)  # for a study, before it was known that this is none
    for folder in (made, made.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    settings = check_analysis(config)
    if settings.run is not None and settings.gather is not None:
        raise UserError("give one of run=FOLDER, a run of train.py, and gather=FOLDER, the folder of a sweep")
    if settings.run is not None:
        rebuild_report(Path(settings.run), settings.seed)
    elif settings.gather is not None:
        gather(Path(settings.gather), plain_console(REPORT_WIDTH))

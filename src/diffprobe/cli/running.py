"""The jobs of `train.py` and `analyze.py`: settings checked, a free folder, the work, its report, and the tracker."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffprobe.analyses.objects import ObjectAnalysis
from diffprobe.analyses.probing.analysis import Probing
from diffprobe.cli.errors import job_errors, plain_errors
from diffprobe.cli.gathering import gather
from diffprobe.cli.keys import check_typed
from diffprobe.errors import UserError
from diffprobe.files import write_text
from diffprobe.heap import keep_freed_memory
from diffprobe.parts import class_name, make
from diffprobe.runs.folder import (
    CONFIGURATION,
    FINISHED,
    is_finished,
    read_recorded,
    read_settings,
    record_configuration,
    remove_results,
    run_lock,
)
from diffprobe.runs.processes import by_joblib, check_processes, processes_at_once
from diffprobe.runs.settings import check_analysis, checked
from diffprobe.runs.trainers import check_trainer, make_trainer, quiet_libraries
from diffprobe.signals import Stopped
from diffprobe.signals import check as stop_if_asked
from diffprobe.terminal import plain_console
from diffprobe.threads import share_threads

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from diffprobe.analyses.analysis import Analysis, RunContext
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.report.tracking import RunName, Tracker

REPORT_WIDTH = 100  # columns; fewer would cut the closing table's numbers


@job_errors
def run_probing(config: DictConfig) -> float | None:
    """`train.py`'s job: runs the probing study into Hydra's output folder; a finished folder is left alone.

    Returns:
        What a search maximises, see `objective`; None for a dry run and for the helping processes of a run.
    """
    from diffprobe.probes.summaries import read_summary

    folder = carry_out(config, checked)
    return None if folder is None else objective(read_summary(folder / "summary.csv"))


def run_analysis(config: DictConfig) -> None:
    """`analyze.py`'s job: runs an analysis, reports `config.run` anew, or gathers the sweep `config.gather`."""
    if config.get("run") is None and config.get("gather") is None:
        job_errors(carry_out)(config, check_analysis)
    else:
        _report_finished(config)


@plain_errors
def _report_finished(config: DictConfig) -> None:
    gc.enable()
    made = Path(HydraConfig.get().runtime.output_dir)  # by Hydra, for an analysis
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


def objective(summaries: pd.DataFrame) -> float:
    """What a search maximises: the mean headline score on *validation* images over all probes of the network itself.

    Errors count as negative, angles as shares of 180 degrees, so that they do not outweigh scores between 0 and 1. NaN
    if no such score is defined.
    """
    import pandas as pd

    from diffprobe.probes.score_table import select
    from diffprobe.probes.summaries import headline_metric

    rows = select(summaries, control="none", split="validation")
    means = []
    for name in rows["property"].unique():
        metric = headline_metric(rows, name)
        unit = metric.sign if metric.higher_is_better or math.isinf(metric.high) else -metric.high
        means.append(select(rows, property=name, metric=metric.name)["mean"] / unit)
    return float(pd.concat(means).mean()) if means else math.nan


def rebuild_report(folder: Path, seed: int) -> None:
    """Reads the scores in `folder`, compares, prints the closing table, and writes tables and figures anew.

    Raises:
        UserError: the folder is not there, or holds no run of train.py.
    """
    from diffprobe.analyses.probing.learning_curve import COLUMNS
    from diffprobe.analyses.probing.report import report
    from diffprobe.probes.score_table import read_csv, read_scores
    from diffprobe.probes.summaries import summarise
    from diffprobe.report.publish import draw_figures, print_report, write_tables

    if not folder.is_dir():
        raise UserError(f"run={folder}: there is no such folder; give a run folder that train.py made")
    if (folder / CONFIGURATION).is_file() and "analysis" in read_recorded(folder):
        raise UserError(
            f"run={folder} is an analysis, told already in its report.txt and report.html; run= tells a run of train.py"
        )
    curve = folder / "learning_curve.csv"
    more = {"learning_curve": read_csv(curve, COLUMNS)} if curve.exists() else {}
    scores = read_scores(folder)
    rebuilt = report(scores, summarise(scores), seed=seed, more=more)
    rebuilt = replace(rebuilt, tables={name: table for name, table in rebuilt.tables.items() if name != "scores"})
    write_tables(rebuilt, folder)
    figures = draw_figures(rebuilt, folder / "figures")
    console = plain_console(REPORT_WIDTH)
    print_report(rebuilt, console)
    best = folder / "tables" / "best_layers.md"
    console.print(f"{len(figures)} figures in {folder / 'figures'}, best layers in {best}", soft_wrap=True)


def carry_out(config: DictConfig, check: Callable[[DictConfig], Any]) -> Path | None:
    """Runs an analysis into Hydra's output folder: checked, planned, run, and its report published.

    A folder that has the finished run of the same settings is left alone.

    Args:
        check: makes settings of the configuration.

    Returns:
        The folder of the finished run; None of a dry run, and in a helping process.

    Raises:
        UserError: of what the user got wrong, before any work is done.
    """
    from diffprobe.backbone.certificate import copy_certificate
    from diffprobe.report.tracking import RunName
    from diffprobe.runs.environment import environment

    started = time.perf_counter()
    hydra: Any = HydraConfig.get()
    check_typed(config, hydra)
    settings = check(config)
    kind, analysis = chosen_analysis(settings)
    check_processes(settings.trainer, hydra)
    if not analysis.distributed and settings.trainer.devices * settings.trainer.num_nodes > 1:
        raise UserError(f"analysis={kind} runs in one process; use trainer.devices=1")
    share_threads(processes_at_once(settings.trainer, hydra), chosen_by_joblib=by_joblib(hydra))
    keep_freed_memory()
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir) if hydra.mode.name == "MULTIRUN" else None
    with _resume_hint(analysis, settings, folder, sweep), quiet_libraries():
        from lightning.pytorch.utilities import rank_zero_only

        helping = rank_zero_only.rank > 0  # one of several processes: it shares the work, and the first one reports
        console = plain_console(REPORT_WIDTH, quiet=helping)
        if is_finished(folder, settings, check):
            return _skipped(folder, console)
        check_trainer(settings)
        task, inputs = _check(analysis, settings, console)
        if settings.dry_run:
            return None
        gc.enable()
        if helping:
            analysis.run(task, _context(settings, console, None))
            return None
        with run_lock(folder, console.print):
            if is_finished(folder, settings, check):  # by another process, while this one prepared
                return _skipped(folder, console)
            remove_results(folder)  # of an unfinished run: what it read may have changed since
            record_configuration(folder, config, hydra)
            place = folder.resolve()
            name = RunName(kind, f"{place.parent.name}/{place.name}", sweep.resolve().name if sweep else None)
            evaluations = _run(analysis, task, settings, config, folder, console, name)
            if "backbone" in vars(inputs):  # the analysis has loaded one
                copy_certificate(inputs.backbone, folder)
            wall = time.perf_counter() - started
            record = environment(seeds={"seed": settings.seed}, wall_seconds=wall, network_evaluations=evaluations)
            # The file that marks the run as finished: the last one, when tracker and tables are complete
            write_text(folder / FINISHED, json.dumps(record, indent=2) + "\n")
        console.print(f"run folder: {folder} ({wall:.0f} s)", soft_wrap=True)
    return folder


def chosen_analysis(settings: Any) -> tuple[str, Analysis]:
    """The name of the analysis that the settings ask for, and the analysis; probing where they name none."""
    chosen = OmegaConf.select(settings, "analysis")
    if chosen is not None:
        return class_name(chosen), make(chosen)
    report = make(settings.report)
    return "probing", Probing(report.learning_curve, report.published)


def _run(
    analysis: Analysis, task: Any, settings: Any, config: DictConfig, folder: Path, console: Console, name: RunName
) -> int:
    """Runs the analysis and publishes its report; returns how often the network was evaluated."""
    from diffprobe.report.publish import publish
    from diffprobe.report.tracking import Tracker
    from diffprobe.runs.environment import reproduce

    script = "train" if name.kind == "probing" else "analyze"
    plain: Any = OmegaConf.to_container(config, resolve=True)
    typed = HydraConfig.get().overrides
    overrides = [*(each for each in typed.hydra if each.startswith("hydra.searchpath=")), *typed.task]
    with Tracker(settings.logger, folder, plain, name) as tracker:
        context = _context(settings, console, tracker)
        report = analysis.report(task, analysis.run(task, context), context)
        publish(
            report,
            folder=folder,
            console=console,
            tracker=tracker,
            config=plain,
            reproduce=reproduce(folder, overrides, {"seed": settings.seed}, script),
        )
        stop_if_asked()
    return report.evaluations


def _check(analysis: Analysis, settings: Any, console: Console) -> tuple[Any, Inputs]:
    """The validated inputs of an analysis, and what they were made of; prints its plan, in full if the run is dry."""
    from diffprobe.analyses.inputs import Inputs

    log = _log(console)
    inputs = Inputs(settings, log, read_settings)
    task = analysis.check(inputs)
    plan = analysis.plan(task)
    for line in (*plan.summary, *(plan.details if settings.dry_run else ())):
        log(line)
    return task, inputs


def _context(settings: Any, console: Console, tracker: Tracker | None) -> RunContext:
    from rich.progress import Progress

    from diffprobe.analyses.analysis import RunContext

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
        with Progress(console=console, transient=True) as bars:
            bar = bars.add_task(what, total=total)
            yield lambda done: bars.update(bar, completed=done)

    return RunContext(settings.seed, partial(make_trainer, settings, tracker=tracker), _log(console), progress)


def _log(console: Console) -> Callable[[str], None]:
    return partial(console.print, soft_wrap=True, markup=False, highlight=False)


def _skipped(folder: Path, console: Console) -> Path:
    console.print(f"skipped, since it is finished: {folder}", soft_wrap=True)
    return folder


@contextmanager
def _resume_hint(analysis: Analysis, settings: Any, folder: Path, sweep: Path | None) -> Iterator[None]:
    """Adds to a signal that stops the run what a person can do then."""
    try:
        yield
    except Stopped as stopped:
        stored = None  # the folder that an interrupted run finds its work in
        if isinstance(analysis, ObjectAnalysis):
            stored = settings.prototypes.folder
        elif settings.features.store == "disk":
            stored = settings.features.folder
        goes_on = f"goes on from what is kept in {stored}" if stored else "begins again, since nothing is kept on disk"
        place = f"hydra.sweep.dir={sweep}" if sweep else f"hydra.run.dir={folder}"
        done = (folder / FINISHED).exists()
        stopped.hint = stopped.hint or (f"{folder} is finished" if done else f"the same command with {place} {goes_on}")
        raise

"""Runs side by side: `analyze.py analysis=compare 'analysis.runs=[A,B]'`, from run folders to one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from diffprobe.analyses.analysis import Plan
from diffprobe.errors import UserError
from diffprobe.ranges import Folder, Items
from diffprobe.runs.folder import FINISHED, RUN_ONLY_KEYS, flattened
from diffprobe.runs.recorded import CONFIGURATION, read_recorded
from diffprobe.runs.sweeps import begun_jobs

if TYPE_CHECKING:
    from diffprobe.analyses.analysis import RunContext
    from diffprobe.analyses.comparison.report import FinishedRun
    from diffprobe.analyses.inputs import Inputs
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class Comparison:
    """Finished runs side by side.

    Attributes:
        runs: their folders, at least two; the folder of a sweep stands for its finished jobs.
    """

    runs: Annotated[list[Folder], Items(distinct=False)] = field(default_factory=list)
    distributed: ClassVar[bool] = False

    def check(self, inputs: Inputs) -> dict[Path, FinishedRun]:
        folders = _named([run for each in self.runs for run in _runs_of(Path(each))])
        return {place: _read(name, place) for name, place in folders.items()}

    def plan(self, task: dict[Path, FinishedRun]) -> Plan:
        return Plan([f"{len(task)} runs: {', '.join(run.name for run in task.values())}"])

    def run(self, task: dict[Path, FinishedRun], context: RunContext) -> None:
        """Nothing: what runs left is all that there is."""

    def report(self, task: dict[Path, FinishedRun], result: None, context: RunContext) -> Report:
        from diffprobe.analyses.comparison.report import report

        return report({run.name: place for place, run in task.items()}, list(task.values()), seed=context.seed)


def _runs_of(folder: Path) -> list[Path]:
    """The folder of a run itself; of a sweep those of its finished jobs."""
    jobs = [] if (folder / FINISHED).exists() else [job for job in begun_jobs(folder) if (job / FINISHED).exists()]
    return jobs or [folder]


def _named(folders: Sequence[Path]) -> dict[str, Path]:
    """The folders by the shortest ends of their paths that tell all apart.

    Raises:
        UserError: fewer than two, one twice, one that is not there or is not finished.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError(
            f"analysis.runs={[str(folder) for folder in folders]}: give the folders of at least two different runs"
        )
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"analysis.runs: there is no folder {folder}")
        if not (folder / FINISHED).exists():
            raise UserError(f"analysis.runs: {folder} is no finished run, since it has no {FINISHED}; finish it first")
    parts = [folder.resolve().parts for folder in folders]
    names: list[str] = []
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, folders, strict=True))


def _read(name: str, folder: Path) -> FinishedRun:
    """Raises UserError for a run without a table that can be compared."""
    from diffprobe.analyses.comparison.report import TEST_COLUMNS, FinishedRun
    from diffprobe.probes.score_table import read_csv, read_scores, scores_file
    from diffprobe.probes.summaries import read_summary

    summary, tests = folder / "summary.csv", folder / "tests.csv"
    scored = scores_file(folder) is not None
    if not (scored or summary.exists() or tests.exists()):
        raise UserError(f"analysis.runs: {folder} has neither scores nor tests.csv, so there is nothing to compare")
    recorded = folder / CONFIGURATION
    settings = flattened(read_recorded(folder)) if recorded.exists() else {}
    return FinishedRun(
        name,
        scores=read_scores(folder) if scored else None,
        summaries=read_summary(summary) if summary.exists() else None,
        tests=read_csv(tests, TEST_COLUMNS) if tests.exists() else None,
        settings={key: value for key, value in settings.items() if key not in RUN_ONLY_KEYS},
    )

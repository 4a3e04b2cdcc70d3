"""What an analysis is: checked, planned, run and reported, in this order (`diffprobe.cli.running` calls it so).

An analysis of one's own is a class with these four methods, named by `_target_` in a YAML file of the group `analysis`.
Its arguments, with their types and ranges, are its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import lightning

    from diffprobe.analyses.inputs import Inputs
    from diffprobe.report.report import Report


@dataclass(frozen=True)
class Plan:
    """What a run will cost.

    Attributes:
        summary: lines that are always printed before the work.
        details: lines that follow where nothing is to be done (`dry_run=true`).
    """

    summary: Sequence[str]
    details: Sequence[str] = ()


@dataclass(frozen=True)
class RunContext:
    """What an analysis works with beside its inputs.

    Attributes:
        seed: of the run.
        trainer: makes the Lightning trainer of a stage, such as 'generate' or 'train linear'. A stage that trains is
            tracked.
        log: takes a line for people.
        progress: progress('images', 20) is a context in which a bar counts; it gives what takes how many are done.
    """

    seed: int
    trainer: Callable[[str], lightning.Trainer]
    log: Callable[[str], None]
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Analysis(Protocol):
    """The methods of an analysis. It writes no file, prints nothing and knows no tracker.

    Attributes:
        distributed: whether several processes may share `run`. `report` is always the first one's alone.
    """

    distributed: ClassVar[bool]

    def check(self, inputs: Inputs) -> Any:
        """The validated inputs of the run, of whatever class. Raises UserError for what the user got wrong."""
        ...

    def plan(self, task: Any) -> Plan:
        """What the run will cost, of what `check` returned."""
        ...

    def run(self, task: Any, context: RunContext) -> Any:
        """The work that processes share: network passes, probes that are trained."""
        ...

    def report(self, task: Any, result: Any, context: RunContext) -> Report:
        """What was found, of what `run` returned: statistics, tables, figures."""
        ...

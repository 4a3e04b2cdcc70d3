"""What an analysis is: a class with the methods check, plan, run and report, which are called in this order.

The class is named by `_target_` in a YAML file of the group `analysis`. Its arguments, with their types and ranges, are
its settings.
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
    """What a run will cost: lines that are printed before the work, and those that follow only in a dry run."""

    summary: Sequence[str]
    details: Sequence[str] = ()


@dataclass(frozen=True)
class RunContext:
    """What an analysis works with beside its inputs.

    Attributes:
        trainer: makes the Lightning trainer of a stage, such as 'generate' or 'train linear'. A stage that trains is
            tracked.
        log: takes a line for people.
        progress: progress('images', 20) is a context with a progress bar; it gives a function that takes how many are
            done.
    """

    seed: int
    trainer: Callable[[str], lightning.Trainer]
    log: Callable[[str], None]
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Analysis(Protocol):
    """It writes no file, prints nothing and knows no tracker.

    Attributes:
        distributed: whether several processes may share `run`. Only the first one calls `report`.
    """

    distributed: ClassVar[bool]

    def check(self, inputs: Inputs) -> Any:
        """The validated inputs of the run. Raises UserError for what the user got wrong."""
        ...

    def plan(self, task: Any) -> Plan:
        """What the run will cost; `task` is what `check` returned."""
        ...

    def run(self, task: Any, context: RunContext) -> Any:
        """The work that processes share: network passes, probes that are trained."""
        ...

    def report(self, task: Any, result: Any, context: RunContext) -> Report:
        """Statistics, tables and figures; `result` is what `run` returned."""
        ...

"""The rows of scores.csv and summary.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffprobe.tables import Step, read_rows, write_rows


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one image. `step` is 0-based; `value` is None where the metric is undefined.

    `control` is 'none' for the real thing, else the name of a control; `split` is 'validation' or 'test'.
    rmse is in units of the standard deviation of the training labels.
    """

    model: str
    layer: str
    step: Step
    timestep: float | None
    property: str
    probe: str
    control: str
    split: str
    image: str
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean over the `n` images with a defined value, and its interval; None where `n` is 0, or too small for one."""

    model: str
    layer: str
    step: Step
    timestep: float | None
    property: str
    probe: str
    control: str
    split: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


def write_scores(path: str | Path, rows: Sequence[Score]) -> None:
    """Write scores.csv, as `write_rows`."""
    write_rows(path, Score, rows)


def read_scores(path: str | Path) -> list[Score]:
    """Read scores.csv. Raises UserError as `read_rows`."""
    return read_rows(path, Score)


def write_summary(path: str | Path, rows: Sequence[Summary]) -> None:
    """Write summary.csv, as `write_rows`."""
    write_rows(path, Summary, rows)


def read_summary(path: str | Path) -> list[Summary]:
    """Read summary.csv. Raises UserError as `read_rows`."""
    return read_rows(path, Summary)

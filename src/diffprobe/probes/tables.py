"""The rows of scores.csv and summary.csv, and their reading and writing."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from diffprobe.errors import UserError

NO_STEP = -1  # the step of a row that belongs to no step (the position control); an empty cell in the file


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one image. `step` is 0-based; `value` is None where the metric is undefined.

    `control` is 'none' for the real thing, else 'permuted' or 'position'; `split` is 'validation' or 'test'.
    rmse is in units of the standard deviation of the training labels.
    """

    model: str
    layer: str
    step: int
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
    """Mean over the `n` images with a defined value, and its bootstrap interval; None where `n` is 0."""

    model: str
    layer: str
    step: int
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


Row = TypeVar("Row", Score, Summary)


def write_scores(path: str | Path, rows: Sequence[Score]) -> None:
    """Write scores.csv: full precision, missing cells empty, the whole file or nothing."""
    _write(Path(path), Score, rows)


def read_scores(path: str | Path) -> list[Score]:
    """Read scores.csv. Raises UserError when the file or a column is missing, or a cell is no number."""
    return _read(Path(path), Score)


def write_summary(path: str | Path, rows: Sequence[Summary]) -> None:
    """Write summary.csv, as `write_scores`."""
    _write(Path(path), Summary, rows)


def read_summary(path: str | Path) -> list[Summary]:
    """Read summary.csv. Raises UserError as `read_scores`."""
    return _read(Path(path), Summary)


def _write(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    columns = [field.name for field in fields(kind)]
    cells, step = attrgetter(*columns), columns.index("step")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(_emptied(cells(row), step) for row in rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _emptied(cells: tuple, step: int) -> tuple:
    """The cells of one row with no number where there is no step."""
    return cells if cells[step] != NO_STEP else (*cells[:step], None, *cells[step + 1 :])


def _read(path: Path, kind: type[Row]) -> list[Row]:
    if not path.is_file():
        raise UserError(f"there is no {path}.")
    columns = [field.name for field in fields(kind)]
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise UserError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(header) or 'no header'}.")
        cells = [(header.index(name), _FROM_CELL.get(name, str)) for name in columns]
        try:
            return [kind(*[convert(row[index]) for index, convert in cells]) for row in reader]
        except IndexError:
            raise UserError(f"{path}, line {reader.line_num}: fewer cells than the header has.") from None
        except ValueError as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}.") from None


def _step(cell: str) -> int:
    return int(cell) if cell else NO_STEP


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


# How cells become values, where they do not stay text.
_FROM_CELL: dict[str, Callable[[str], Any]] = {
    "step": _step,
    "n": int,
    **dict.fromkeys(("timestep", "value", "mean", "low", "high"), _number),
}

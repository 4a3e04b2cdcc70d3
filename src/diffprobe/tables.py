"""Tables read from CSV files: one data class a table, whose fields are the columns."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from diffprobe.errors import UserError

NO_STEP = -1  # the step of a row that belongs to no step (the position control); an empty cell in the file
Step = Annotated[int, "NO_STEP is an empty cell"]

Row = TypeVar("Row")


def read_rows(path: str | Path, kind: type[Row]) -> list[Row]:
    """Read rows of a data class. Raises UserError when the file or a column is missing, or a cell is no number."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no {path}.")
    columns = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    types = get_type_hints(kind, include_extras=True)
    reader = csv.reader(StringIO(_text(path), newline=""))
    try:
        header = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise UserError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(header) or 'no header'}.")
        cells = [(header.index(name), _FROM_CELL[types[name]]) for name in columns]
        return [kind(*[convert(row[index]) for index, convert in cells]) for row in reader if row]
    except IndexError:
        raise UserError(f"{path}, line {reader.line_num}: fewer cells than the header has.") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}.") from None


def _text(path: Path) -> str:
    """A whole table; spreadsheets that saved it may have put a byte order mark before it."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: byte {error.start} is not UTF-8.") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from None


def _step(cell: str) -> int:
    return int(cell) if cell else NO_STEP


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


# How the text of a cell becomes a value, by the type of its column.
_FROM_CELL: dict[Any, Callable[[str], Any]] = {str: str, int: int, Step: _step, float: float, float | None: _number}

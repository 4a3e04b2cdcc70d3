"""Rows of the tables of a run folder, read back for tests."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pandas as pd
import pyarrow as pa

from diffprobe.files import NO_STEP, Step
from diffprobe.probes.score_table import TEXT, read_csv

Row = TypeVar("Row")
_COLUMNS: dict[Any, pa.DataType] = {
    str: TEXT,
    int: pa.int64(),
    Step: pa.int16(),
    float: pa.float64(),
    float | None: pa.float64(),
}


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a CSV file as objects of a data class: None for what is missing, NO_STEP where there is no step."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    table = read_csv(path, {name: _COLUMNS[hints[name]] for name in names})
    missing = [NO_STEP if hints[name] == Step else None for name in names]
    return [
        kind(*(other if pd.isna(cell) else cell for other, cell in zip(missing, row, strict=True)))
        for row in table.itertuples(index=False)
    ]

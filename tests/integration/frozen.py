"""Tables of tiny runs, kept as rounded numbers, so that a change of the code that should change no number is seen to
change none.

`pytest tests/integration` compares the tables of each run with `numbers/<run>.json`. After a change that should change
numbers, `FREEZE=1 pytest tests/integration` writes them anew: look at the difference before you commit it, and say in
the commit why the old ones were wrong.

Floating point sums differ between processors and numbers of threads, by up to 1e-3 in a score of these tiny runs. So
numbers are equal to 1e-5 only where they were frozen. Elsewhere the tables, their columns and rows are compared, and
the means roughly; before a change of the code, freeze them on the machine at hand.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

NUMBERS = Path(__file__).parent / "numbers"
TOLERANCE = 1e-5  # of 1, or of the number where it is larger
ELSEWHERE = 0.05  # of a column's mean, on another machine
ROWS = 20  # of a long table that are kept one by one; of all its rows there are means
NOT_RESULTS = {"curves", "seconds"}  # what the CSV logger repeats of the tables, and what a clock said

Table = dict[str, Any]  # {"rows": number of rows, "columns": {name: what is kept of a column}}


def check_frozen(run: str, folder: Path) -> None:
    """Compares the tables of a run folder with those that were frozen under the name of the run.

    Raises:
        AssertionError: a table, a column, a row or a number is another; it names the first ones.
    """
    found = {path.stem: _summarised(*_read(path)) for path in _tables(folder)}
    file = NUMBERS / f"{run}.json"
    if os.environ.get("FREEZE") == "1":
        _write(NUMBERS / "machine.json", _machine())
        _write(file, found)
    expected = json.loads(file.read_text())
    here = json.loads((NUMBERS / "machine.json").read_text()) == _machine()
    names = sorted({*expected, *found})
    differences = [line for name in names for line in _differences(name, expected.get(name), found.get(name), here)]
    shown = "\n".join(differences[:20])
    assert not differences, f"{run}: {len(differences)} differences from {file.name}\n{shown}"


def _machine() -> dict[str, Any]:
    """What decides in which order numbers are added up."""
    import torch

    facts = dict(line.split(":", 1) for line in _lines(Path("/proc/cpuinfo")) if ":" in line)
    described = {name.strip(): value.strip() for name, value in facts.items()}
    return {
        "torch": torch.__version__,
        "processor": [described.get(name) for name in ("model name", "cpu family", "model", "stepping")],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False)
    file.write_text(re.sub(r"\[[^\]]*\]", lambda found: " ".join(found[0].split()), text) + "\n")  # a list on one line


def _tables(folder: Path) -> list[Path]:
    paths = [*folder.glob("*.csv"), *folder.glob("*.parquet"), *folder.glob("tables/*.csv")]
    return sorted(path for path in paths if path.stem not in NOT_RESULTS)


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Column names, and rows in an order of their own, so that the order in the file does not matter."""
    text = pd.read_parquet(path).to_csv(index=False) if path.suffix == ".parquet" else path.read_text()
    columns, *rows = csv.reader(StringIO(text))
    return columns, sorted(rows, key=lambda row: [_rounded(cell, 3) for cell in row])


def _rounded(cell: str, digits: int) -> str:
    number = _number(cell)
    return cell if number is None else f"{number:020.{digits}f}"


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _summarised(columns: list[str], rows: list[list[str]]) -> Table:
    kept = {name: _column([row[index] for row in rows]) for index, name in enumerate(columns)}
    return {"rows": len(rows), "columns": kept}


def _column(cells: list[str]) -> dict[str, Any]:
    """Of text: a hash. Of numbers: some of them, their mean, and their mean weighted by place, over all rows."""
    numbers = [_number(cell) for cell in cells]
    if any(cell and number is None for cell, number in zip(cells, numbers, strict=True)):
        return {"text": hashlib.sha256("\n".join(cells).encode()).hexdigest()[:16], "first": cells[0]}
    every = math.ceil(len(cells) / ROWS) or 1
    there = [(row, number) for row, number in enumerate(numbers) if number is not None and math.isfinite(number)]
    weights = [math.sin(row) for row, _ in there]
    count = max(len(there), 1)
    return {
        "empty": len(cells) - len(there),
        "mean": _short(sum(number for _, number in there) / count),
        "weighted": _short(sum(weight * number for weight, (_, number) in zip(weights, there, strict=True)) / count),
        "some": [None if number is None else _short(number) for number in numbers[::every]],
    }


def _short(number: float) -> float | str:
    return float(f"{number:.8g}") if math.isfinite(number) else str(number)


def _differences(name: str, old: Table | None, new: Table | None, here: bool) -> list[str]:
    if old is None or new is None:
        return [f"{name}: the table is {'new' if old is None else 'missing'}"]
    if old["rows"] != new["rows"] or sorted(old["columns"]) != sorted(new["columns"]):
        return [f"{name}: {old['rows']} rows of {sorted(old['columns'])} -> {new['rows']} of {sorted(new['columns'])}"]
    pairs = [(column, old["columns"][column], kept) for column, kept in new["columns"].items()]
    if here:
        return [line for column, was, now in pairs for line in _column_differences(f"{name}.{column}", was, now)]
    means = [(column, was["mean"], now["mean"]) for column, was, now in pairs if "mean" in was and "mean" in now]
    return [f"{name}.{c}.mean: {was} -> {now}" for c, was, now in means if not _close(was, now, ELSEWHERE)]


def _column_differences(where: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    lines = [
        f"{where}.{part}: {old.get(part)} -> {value}"
        for part, value in new.items()
        if part != "some" and not _close(old.get(part), value, TOLERANCE)
    ]
    some = zip(old.get("some", []), new.get("some", []), strict=False)
    rows = [(row, was, now) for row, (was, now) in enumerate(some) if not _close(was, now, TOLERANCE)]
    return lines + [f"{where}: {len(rows)} numbers, first row {row}: {was} -> {now}" for row, was, now in rows[:1]]


def _close(old: Any, new: Any, tolerance: float) -> bool:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(old - new) <= tolerance * max(1.0, abs(old))
    return old == new

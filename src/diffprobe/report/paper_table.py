"""A table as papers print it: rows of cells that are text to read and numbers to reckon with."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffprobe.report.numbers import latex_table, markdown_table
from diffprobe.writing import replacing, write_text

WIDEST = 8  # columns of cells; what has more is printed on its side


@dataclass(frozen=True)
class Cell:
    """What is printed, and the numbers behind it at full precision, by name ('' for the only one)."""

    text: str
    numbers: Mapping[str, float | str | None]


@dataclass(frozen=True)
class PaperTable:
    """
    Attributes:
        caption: what the cells are, and whose.
        rows: (heading -> what the row is of, heading -> cell) of every row; all have the same headings.
        notes: what is to be said of single cells.
    """

    caption: str
    rows: list[tuple[Mapping[str, str], Mapping[str, Cell]]]
    notes: list[str]

    def lines(self) -> list[list[str]]:
        """The table as text, headings first; on its side if it is too wide to be read."""
        keys, cells = self.rows[0]
        lines = [[*keys, *cells]]
        lines += [[*keys.values(), *(cell.text for cell in cells.values())] for keys, cells in self.rows]
        return [list(line) for line in zip(*lines, strict=True)] if len(cells) > WIDEST else lines

    def records(self) -> list[dict[str, float | str | None]]:
        """The rows with all numbers, each in a column of its own: '<heading> <name>'."""
        return [
            {**keys}
            | {
                f"{heading} {name}".strip(): number
                for heading, cell in cells.items()
                for name, number in cell.numbers.items()
            }
            for keys, cells in self.rows
        ]


def write_table(folder: Path, name: str, table: PaperTable) -> dict[str, Path]:
    """Writes `name`.csv (full precision), .md and .tex (needs booktabs) into the folder; the paths by format."""
    paths = {kind: folder / f"{name}.{kind}" for kind in ("csv", "md", "tex")}
    records = table.records()
    with replacing(paths["csv"]) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    write_text(paths["md"], f"{table.caption}\n\n{markdown_table(table.lines(), table.notes)}")
    write_text(paths["tex"], latex_table(table.lines(), [table.caption, *table.notes]))
    return paths

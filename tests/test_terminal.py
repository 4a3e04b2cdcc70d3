"""Names of people are printed as they are, whatever they hold."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.table import Table

from diffprobe.terminal import plain_console

SOURCE = Path(__file__).parents[1] / "src" / "diffprobe"


@pytest.mark.parametrize("name", ["out[/b]", "[red]x", "out[seed]1", "a:bug:b", "[link=x]y[/link]", "[/]", r"\[b]"])
def test_brackets_and_colons_of_names_stay(name):
    console = plain_console(100, file=StringIO())
    table = Table(name, title=name, caption=name)
    table.add_row(name)
    console.print(f"run folder: {name}", soft_wrap=True)
    console.print(table)
    assert console.file.getvalue().count(name) == 5


def test_no_module_makes_a_console_that_reads_markup():
    makers = [path.name for path in SOURCE.rglob("*.py") if re.search(r"(?<![\w_])Console\(", path.read_text())]
    assert makers == ["terminal.py"]


def test_a_narrow_terminal_is_widened_and_a_wide_one_stays():
    assert plain_console(100, width=60, file=StringIO()).width == 100
    assert plain_console(100, width=140, file=StringIO()).width == 140

"""Runs the notebooks from a clean kernel and writes them with their outputs: `python notebooks/execute.py [NAME...]`.

Each notebook is the .py file beside it (jupytext, percent format), which is what is edited. Prints how long each took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
LIMIT = 600  # seconds that a cell may take


def names() -> list[str]:
    """The notebooks in their order."""
    return sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))


def source(name: str) -> Any:
    """A notebook without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same at every execution
    return notebook


def executed(notebook: Any) -> tuple[Any, float]:
    """A notebook with the outputs of a clean kernel in an empty folder, and the seconds that it took.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises.
    """
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": folder}})
        client.execute()
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)  # times of day
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]  # progress bars
    notebook.metadata.pop("language_info", None)
    return notebook, time.perf_counter() - started


def main(wanted: list[str]) -> int:
    for name in wanted or names():
        notebook, seconds = executed(source(name.removesuffix(".py")))
        path = FOLDER / f"{name.removesuffix('.py')}.ipynb"
        nbformat.write(notebook, path)
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size / 1e6:.2f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The notebooks run from a clean kernel, on fewer images, and what is committed of them is what they are.

`python notebooks/execute.py` runs them as they are, and prints how long each takes.
"""

import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("jupytext")

import nbformat
from notebooks.execute import FOLDER, executed, names, source

# What is written there -> what it is here: cells do the same with fewer images.
FEWER = {
    "02_main_study": {"count=60": "count=12"},
    "03_your_own_property": {"count=60": "count=12", '"60"': '"12"'},
    "04_objects": {"count=80": "count=20"},
    "05_moving_an_object": {"data.count=40": "data.count=10", "count=8": "count=2"},
    "07_early_knowledge": {"count=15": "count=10", "count=20": "count=14"},
}
LARGEST = 1_000_000  # bytes of a notebook with its outputs


def pictures(notebook) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.parametrize("name", names())
def test_a_notebook_runs_from_a_clean_kernel(name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "src"))
    monkeypatch.delenv("SD14", raising=False)
    notebook = source(name)
    for written, fewer in FEWER.get(name, {}).items():
        assert any(written in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(written, fewer) if cell.cell_type == "code" else cell.source
    committed = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert pictures(executed(notebook)[0]) == pictures(committed) > 0


@pytest.mark.parametrize("name", names())
def test_a_committed_notebook_is_its_script_executed(name):
    path = FOLDER / f"{name}.ipynb"
    committed = nbformat.read(path, as_version=4)
    written = [(cell.cell_type, cell.source) for cell in committed.cells]
    assert written == [(cell.cell_type, cell.source) for cell in source(name).cells]
    assert path.stat().st_size < LARGEST
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        assert all(output.output_type != "error" for output in cell.outputs)


@pytest.mark.parametrize("name", names())
def test_links_of_a_notebook_lead_somewhere(name):
    text = "\n".join(cell.source for cell in source(name).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (Path(FOLDER) / target).exists(), target


@pytest.mark.parametrize("name", names())
def test_a_notebook_has_one_idea_a_cell(name):
    for cell in source(name).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 20

"""The notebooks run from a clean kernel, and what is committed of them is what they are."""

import re
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("jupytext")

import nbformat
from notebooks.execute import FOLDER, executed, names, source

MINUTE = 60
LARGEST = 1_000_000  # bytes of a notebook with its outputs


def pictures(notebook) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_a_notebook_runs_from_a_clean_kernel(name, record_property, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent / "src"))
    monkeypatch.delenv("SD14", raising=False)
    notebook, seconds = executed(name)
    record_property("seconds", seconds)
    print(f"{name}: {seconds:.0f} s (goal {MINUTE} s on two idle cores)")
    committed = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert pictures(notebook) == pictures(committed) > 0


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

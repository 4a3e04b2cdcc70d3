"""The script for a GPU runs through on a CPU at tiny size."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT


@pytest.mark.slow
def test_solvers_and_options_are_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, script = tmp_path / "gpu.json", ROOT / "benchmarks" / "gpu.py"
    options = ["--tiny", "--only", "solvers", "options", "--json", str(place)]
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    monkeypatch.syspath_prepend(script.parent)  # as of a script that is started
    runpy.run_path(str(script), run_name="__main__")
    rows = json.loads(place.read_text())["rows"]
    assert [row["part"] for row in rows] == ["solvers"] * 3 + ["options"] * 3
    assert all(row["ratio"] > 0 for row in rows)
    assert [row["option"] for row in rows[3:]] == ["neither", "channels_last", "compile"]

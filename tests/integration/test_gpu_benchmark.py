"""The script for a GPU runs through on a CPU at tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT


@pytest.mark.slow
def test_solvers_and_options_are_measured_and_written(tmp_path: Path) -> None:
    place = tmp_path / "gpu.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny", "--only", "solvers", "options"]
    subprocess.run([*command, "--json", str(place)], check=True, capture_output=True, timeout=300)
    rows = json.loads(place.read_text())["rows"]
    assert [row["part"] for row in rows] == ["solvers"] * 3 + ["options"] * 3
    assert all(row["ratio"] > 0 for row in rows)
    assert [row["option"] for row in rows[3:]] == ["neither", "channels_last", "compile"]

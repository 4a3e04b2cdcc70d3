"""The script for large runs runs through with few images; its commands here in this process, which imports once."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
from matplotlib.figure import Figure

from tests.commands import ROOT, train

ONE_GIGABYTE = 10**9


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("large")
    monkeypatch.setattr(module, "command", in_this_process)
    return module


def in_this_process(folder: str, *settings: str, environment: Any = None) -> tuple[float, float, int]:
    ended = train("probe=ridge", "features=none", f"hydra.run.dir={folder}/run", *settings)
    assert (ended.returncode, ended.stderr) == (0, "")
    return 2.0, 1.0, ONE_GIGABYTE


def test_plans_are_held_against_their_goal(large: ModuleType, capsys: pytest.CaptureFixture) -> None:
    large.plan(tiny=True, runs=1)
    numbers = "in 2.0 s (goal 10 s, 0.20 times that), 1.0 s of processors; 1 runs\n"
    assert capsys.readouterr().out == f"plan: 40 prompts of a file {numbers}plan: 40 prompts of the grammar {numbers}"


def test_memory_is_taken_without_the_scores(large: ModuleType) -> None:
    rows = 4 * (4 * 3 * 11 * 2 + 11)  # images; layers, steps, metrics of all properties, two networks, and position
    assert large.one_pass_memory(10) == ONE_GIGABYTE - 52 * rows


@pytest.mark.slow
def test_a_report_is_made_from_scores_alone(large: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, format, **_: save_blank(path, format))
    found: list[Any] = []
    large.made_up_report(20, Sender(found))
    ((rows, size, *seconds),) = found
    assert rows == 2 * 40 * 16 * 15 * 11  # with controls; images, layers, steps, metrics of all properties
    assert size > 500_000
    assert all(value > 0 for value in seconds)


class Sender:
    def __init__(self, found: list[Any]) -> None:
        self.send = found.append


def save_blank(path: Any, format: str) -> None:
    from PIL import Image

    Image.new("RGB", (1, 1)).save(path, format)

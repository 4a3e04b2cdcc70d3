"""The common look, and that it stays inside this package."""

import re
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

import diffprobe
from diffprobe.report.style import _SETTINGS, save_figure, style


def test_style_holds_inside_and_is_gone_afterwards_even_after_an_error():
    before = dict(matplotlib.rcParams)

    def draw_and_fail():
        with style():
            assert matplotlib.rcParams["font.size"] == 8
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        draw_and_fail()
    assert dict(matplotlib.rcParams) == before


def test_no_text_is_smaller_than_seven_points():
    sizes = {name: value for name, value in _SETTINGS.items() if name.endswith("size")}

    assert min(sizes.values()) >= 7


def test_figures_are_drawn_without_pyplot():
    sources = [path.read_text(encoding="utf-8") for path in Path(diffprobe.__file__).parent.rglob("*.py")]

    assert sum("matplotlib" in text for text in sources) > 5
    assert not [text for text in sources if re.search(r"^\s*(import|from) .*\b(pyplot|pylab)\b", text, re.MULTILINE)]


def test_save_figure_writes_png_and_pdf_of_that_very_name_and_nothing_else(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.add_subplot()

    paths = save_figure(figure, tmp_path, "depth_up_3.0")

    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    assert paths["pdf"].read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth_up_3.0.pdf", "depth_up_3.0.png"]


def test_the_same_figure_is_the_same_file(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.add_subplot()

    first, second = save_figure(figure, tmp_path, "first"), save_figure(figure, tmp_path, "second")

    assert first["pdf"].read_bytes() == second["pdf"].read_bytes()
    assert first["png"].read_bytes() == second["png"].read_bytes()


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    with style():
        figure = Figure(figsize=(1, 1))
        axes = figure.add_subplot(title=r"costs $5 or $\nonsense$", xlabel="$^", ylabel="$$")
        axes.plot([0, 1], label=r"$\bad$")
        axes.legend()
    assert save_figure(figure, tmp_path, "dollars")["png"].is_file()

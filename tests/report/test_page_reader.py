"""report.html as a reader has it in a browser: runs side by side, what is saved, the dark, and paper."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from diffprobe.report.page import PRINTED, page_html
from diffprobe.report.publish import publish
from diffprobe.report.report import Report
from tests.browser import NEEDS_BROWSER, open_tab
from tests.report.made_up_report import MadeUpRun, make_report, make_table, make_view

PAPER = 703  # CSS pixels between the margins of A4

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    report = make_report()
    publish(replace(report, tables={**report.tables, "long": make_table(PRINTED + 5)}), **vars(MadeUpRun(folder)))
    return folder


def saved(tab, button) -> tuple[str, bytes]:
    with tab.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_a_saved_table_is_the_file_of_the_run_in_the_order_and_choice_that_is_seen(run):
    with open_tab() as tab:
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(f"file://{run}/report.html")
        tab.locator("details.table summary").first.click()
        table = tab.locator("details.table").first
        button = table.get_by_role("button", name="Save as CSV")
        assert saved(tab, button) == ("summary.csv", (run / "summary.csv").read_bytes())

        table.locator("input[type=search]").fill("1.1 0.300")
        table.get_by_role("button", name="step").click()
        _, content = saved(tab, button)
        rows = pd.read_csv(run / "summary.csv")
        wanted = rows[rows["layer"].str.contains("blocks.1") & (rows["mean"] == 0.3)].sort_values("step", kind="stable")
        assert pd.read_csv(BytesIO(content)).equals(wanted.reset_index(drop=True))
        assert said == []  # nothing that the page's policy forbids


def test_a_saved_figure_is_the_picture_of_the_page(run):
    with open_tab() as tab:
        tab.goto(f"file://{run}/report.html")
        figure = tab.locator(".figure").first
        assert "figures/scores.pdf" in figure.inner_text()
        name, content = saved(tab, figure.get_by_role("button", name="Save as PNG"))
        assert (name, content) == ("scores.png", (run / "figures" / "scores.png").read_bytes())
        assert Image.open(BytesIO(content)).size == (400, 200)


def colour(tab, place: str, of: str) -> str:
    return tab.locator(place).first.evaluate("(found, of) => getComputedStyle(found)[of]", of)


def brightness(text: str) -> float:
    numbers = [float(number) for number in text[text.index("(") + 1 : -1].split(",")[:3]]
    return sum(numbers) / 3


@pytest.mark.parametrize("machine", ["light", "dark"])
def test_the_page_is_as_light_as_the_machine_until_its_button_is_pressed(run, machine):
    with open_tab(color_scheme=machine) as tab:
        tab.goto(f"file://{run}/report.html")
        theme = tab.locator("#theme")
        for dark in (machine == "dark", machine != "dark"):
            assert theme.inner_text() == ("Light page" if dark else "Dark page")
            assert theme.get_attribute("aria-pressed") == str(dark).lower()
            ground, ink = (brightness(colour(tab, "body", of)) for of in ("backgroundColor", "color"))
            assert (ground < 50, ink > 200) == (dark, dark)
            assert colour(tab, ".figure img", "backgroundColor") == "rgb(255, 255, 255)"
            theme.click()
        tab.reload()
        assert theme.inner_text() == ("Light page" if machine == "dark" else "Dark page")  # nothing is remembered


def test_on_paper_the_page_is_light_without_controls_within_the_margins_and_long_tables_begin(run):
    with open_tab(PAPER, color_scheme="dark") as tab:
        tab.goto(f"file://{run}/report.html")
        tab.emulate_media(media="print")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert brightness(colour(tab, "body", "backgroundColor")) == 255
        assert tab.locator("nav:visible, #theme:visible, .save:visible, input:visible, .panel:visible").count() == 0
        assert tab.evaluate("document.documentElement.scrollWidth") <= PAPER
        for place in (".cells", ".sortable", ".figure img"):
            for box in (found.bounding_box() for found in tab.locator(place).all()):
                assert 0 <= box["x"] < box["x"] + box["width"] <= PAPER
        assert tab.locator("details.table").last.locator("tbody tr:visible").count() == PRINTED
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        assert tab.locator("details.table[open]").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_a_cell_that_is_pointed_at_or_focused_is_marked_in_every_run_with_all_scores(tmp_path, width):
    (tmp_path / "page.html").write_text(page_html(Report("runs", side_by_side=[make_view()])), encoding="utf-8")
    with open_tab(width) as tab:
        tab.goto(f"file://{tmp_path}/page.html")
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        maps, panel, marked = tab.locator(".map"), tab.locator(".panel"), tab.locator(".same")
        boxes = [each.bounding_box() for each in maps.all()]
        assert (boxes[0]["y"] == boxes[1]["y"]) == (width == 1280)  # side by side, or one above the other

        maps.nth(1).get_by_role("button", name="up 1.1, step 1").hover()
        assert [each.get_attribute("aria-label") for each in marked.all()] == [
            "up 1.1, step 1: 0.20", "up 1.1, step 1: 0.90",
        ]  # fmt: skip
        told = panel.inner_text().replace("\t", " ")
        assert "up 1.1 at step 1, Dice:" in told
        assert "run <one> 0.200 [0.100, 0.300] 20 images" in told
        assert "two 0.900 [0.800, 1.000] 20 images" in told
        assert "one less two: -0.700." in told
        assert "Of each cell alone." in told

        maps.first.get_by_role("button", name="up 1.1, step 1").focus()
        tab.keyboard.press("ArrowDown")
        assert [each.get_attribute("aria-label") for each in marked.all()] == ["up 2.1, step 1: 0.50"]
        assert "two no score there" in panel.inner_text().replace("\t", " ")
        assert "Of each cell alone." not in panel.inner_text()

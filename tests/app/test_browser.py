"""A person's way through the page in a browser: from opening it to an image that was denoised with another mask."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

from diffprobe.app.page import open_page
from tests.browser import NEEDS_BROWSER, open_tab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::Warning:gradio"),
    NEEDS_BROWSER,
]


@pytest.fixture
def address(equipment) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = open_page(equipment, port)
    yield f"http://127.0.0.1:{port}/"
    page.close(verbose=False)


@pytest.fixture
def tab() -> Iterator[Any]:
    with open_tab() as tab:
        yield tab


def source(tab: Any, name: str) -> str:
    return tab.locator(f"#{name} img").get_attribute("src")


def press(tab: Any, name: str) -> None:
    tab.get_by_role("button", name=name).click()


def changed(tab: Any, name: str, before: str) -> None:
    """Waits until a picture is another one."""
    tab.wait_for_function(
        "([name, before]) => document.querySelector(`#${name} img`)?.getAttribute('src') !== before",
        arg=[name, before],
    )


def test_a_person_gets_from_opening_the_page_to_an_image_denoised_with_a_moved_and_a_painted_mask(address, tab):
    elsewhere, errors = [], []
    tab.on("request", lambda asked: elsewhere.append(asked.url) if asked.url.startswith("http") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)

    press(tab, "Denoise with this mask")  # too early: the page says so
    tab.get_by_text("press Generate first").first.wait_for()

    tab.locator("#prompt textarea, #prompt input").first.fill("a dog")
    press(tab, "Generate")
    tab.locator("#target img").wait_for()
    for name in ("after", "map_saliency", "map_depth", "original"):
        tab.locator(f"#{name} img").wait_for()

    last = source(tab, "map_saliency")
    tab.locator("#step input[type=number]").fill("1")
    tab.locator("#step input[type=number]").press("Enter")
    changed(tab, "map_saliency", last)

    still = source(tab, "target")
    box = tab.locator("#target img").bounding_box()
    tab.mouse.click(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    changed(tab, "target", still)
    press(tab, "Denoise with this mask")
    tab.locator("#edited img").wait_for()
    verdict = tab.locator("#verdict strong")
    verdict.wait_for()
    assert re.fullmatch(r"Dice with the mask asked for: [01]\.\d\d", verdict.inner_text())

    moved, first = source(tab, "target"), source(tab, "edited")
    box = tab.locator("#editor canvas").first.bounding_box()
    x, y = box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"]
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 20, steps=10)
    tab.mouse.up()
    changed(tab, "target", moved)
    press(tab, "Denoise with this mask")
    changed(tab, "edited", first)

    assert [url for url in elsewhere if not url.startswith(address)] == []
    assert errors == []

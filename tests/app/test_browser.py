"""A person's way through the page in a browser: from opening it to an image that was denoised with another mask."""

from __future__ import annotations

import copy
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

from diffprobe.app import page as page_module
from diffprobe.app.page import open_page
from diffprobe.probes.bank import ProbeBank
from tests.app.conftest import LAYERS
from tests.browser import NEEDS_BROWSER, open_tab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::Warning:gradio"),
    NEEDS_BROWSER,
]


@pytest.fixture
def address(equipment, tmp_path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = open_page(equipment, tmp_path, port)
    yield f"http://127.0.0.1:{port}/"
    page.close(verbose=False)


@pytest.fixture
def tab() -> Iterator[Any]:
    with open_tab() as tab:
        yield tab


def source(tab: Any, name: str) -> str:
    return tab.locator(f"#{name} img").get_attribute("src")


def press(tab: Any, name: str) -> None:
    tab.get_by_role("button", name=name, exact=True).click()


def seen(tab: Any, place: str) -> dict[str, float]:
    """Where something is in the window, once it is there."""
    found = tab.locator(place).first
    found.scroll_into_view_if_needed()
    return found.bounding_box()


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
    for name in ("slot_1", "label", "original"):
        tab.locator(f"#{name} img").wait_for()

    last = source(tab, "slot_1")
    tab.locator("#step input[type=number]").fill("1")
    tab.locator("#step input[type=number]").press("Enter")
    changed(tab, "slot_1", last)

    still = source(tab, "target")
    box = seen(tab, "#target img")
    # By the picture, which playwright waits for to stand still, and not by the window, in which it may yet move
    tab.locator("#target img").click(position={"x": 0.7 * box["width"], "y": 0.5 * box["height"]})
    changed(tab, "target", still)
    press(tab, "Denoise with this mask")
    tab.locator("#edited img").wait_for()
    verdict = tab.locator("#verdict strong")
    verdict.wait_for()
    assert re.fullmatch(r"Dice with the mask asked for: [01]\.\d\d", verdict.inner_text())

    moved, first = source(tab, "target"), source(tab, "edited")
    box = seen(tab, "#editor canvas")
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


def choose(tab: Any, name: str, text: str) -> None:
    """Writes into a list and takes what is written."""
    field = tab.locator(f"#{name} input")
    field.fill(text)
    field.press("Enter")


def test_several_images_are_compared_by_property_layer_and_step_and_taken_along(address, tab, tmp_path):
    tab.goto(address)
    tab.locator("#prompt textarea").fill("a dog\na cat\na fox")
    press(tab, "Generate")
    for number in (1, 2, 3):
        tab.locator(f"#slot_{number} img").wait_for()
    assert tab.locator("#slot_4").count() == 0
    curve = tab.locator("#curve svg")
    assert "Dice at steps 1, 3. a dog" in curve.get_attribute("aria-label")
    assert tab.locator("#curve li").count() == 3

    first, label = source(tab, "slot_2"), source(tab, "label")
    choose(tab, "property", "depth")
    changed(tab, "label", label)
    assert source(tab, "slot_2") != first
    assert "rank correlation" in curve.get_attribute("aria-label")
    first = source(tab, "slot_2")
    choose(tab, "layer", next(iter(LAYERS)))
    changed(tab, "slot_2", first)

    label, original = source(tab, "label"), source(tab, "original")
    tab.get_by_label("2: a cat").check()
    changed(tab, "original", original)
    assert source(tab, "label") != label

    tab.locator("#export").click()
    tab.locator("#files a").nth(1).wait_for()
    with tab.expect_download() as waiting:
        tab.locator("#files a").first.click()
    assert waiting.value.suggested_filename == "a_cat_depth_step_3.png"
    assert Image.open(waiting.value.path()).size[0] > 800
    assert "make_images(equipment, ['a dog', 'a cat', 'a fox'], [2, 2, 2])" in tab.locator("#python").inner_text()

    choose(tab, "model", str(tmp_path / "nowhere"))
    press(tab, "Load")
    tab.get_by_text("there is no such folder").first.wait_for()
    assert tab.locator("#slot_1 img").count() == 1  # the page goes on with what it had


def test_another_model_is_loaded_from_the_list_and_the_page_begins_anew(equipment, address, tab, monkeypatch):
    bank = ProbeBank({"up_blocks.3.resnets.2": 8}, [1], ["saliency", "shading"])
    other = replace(equipment, bank=bank)

    def load(choice, stores, log):
        log(f"training probes of {choice}")
        return other

    monkeypatch.setattr(page_module, "load_equipment", load)
    tab.goto(address)
    tab.locator("#seed textarea, #seed input").first.fill("1 2")
    press(tab, "Generate")
    tab.locator("#slot_2 img").wait_for()
    tab.get_by_label("2: a blue cube").check()
    choose(tab, "model", "runs/other")
    press(tab, "Load")
    tab.get_by_text("training probes of runs/other").first.wait_for()
    tab.wait_for_function("!document.querySelector('#slot_1 img') && !document.querySelector('#original img')")
    assert tab.locator("#slot_2, #current").count() == 0

    press(tab, "Generate")
    tab.locator("#slot_2 img").wait_for()
    assert "Dice at steps 2. a blue cube" in tab.locator("#curve svg").get_attribute("aria-label")
    label = source(tab, "label")
    choose(tab, "property", "shading")
    changed(tab, "label", label)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_is_no_wider_than_the_window(address, scheme):
    with open_tab(390, 800, color_scheme=scheme) as tab:
        tab.goto(address)
        press(tab, "Generate")
        tab.locator("#target img").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        ground, ink = (
            tab.evaluate("([place, of]) => getComputedStyle(document.querySelector(place))[of]", [place, of])
            for place, of in (("body", "backgroundColor"), ("#curve svg text", "fill"))
        )
        assert (light(ground), light(ink)) == ((True, False) if scheme == "light" else (False, True))


def test_who_presses_before_the_page_is_through_with_loading_has_its_model(equipment, tmp_path):
    page = page_module.build_page(equipment, tmp_path)
    states = [block.value for block in page.blocks.values() if isinstance(block, page_module.gr.State)]
    assert states[0] is equipment
    assert copy.deepcopy(states[0]) is equipment  # as gradio does for every visitor


def light(colour: str) -> bool:
    return sum(float(number) for number in re.findall(r"[\d.]+", colour)[:3]) / 3 > 128

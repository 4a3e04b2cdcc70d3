"""report.html in a browser: no errors, nothing wider than the window, and everything works by keyboard and click."""

import json
import os
import re
import subprocess
from html import unescape

import pytest

from diffprobe.report.publish import publish
from tests.browser import BROWSER, FLAGS, NEEDS_BROWSER
from tests.report.made_up_report import MadeUpRun, make_report

DUMP = [*FLAGS, "--headless", "--enable-logging=stderr", "--dump-dom"]
# Goes through the page as a reader does, and leaves what it saw in the title.
VISIT = """
const key = (element, name) => element.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const seen = {};
const heat = document.querySelector(".heat");
const first = heat.querySelector("button[tabindex='0']");
first.focus();
key(document.activeElement, "ArrowDown");
key(document.activeElement, "End");
seen.focused = document.activeElement.getAttribute("aria-label");
seen.reached = heat.querySelectorAll("button[tabindex='0']").length;
document.activeElement.click();
seen.panel = heat.querySelector(".panel").textContent;
seen.frames = [...heat.querySelectorAll(".panel .frame")].map((each) => each.style.getPropertyValue("--at"));
const range = document.querySelector("input[type=range]");
range.value = 1;
range.dispatchEvent(new Event("input"));
const slider = range.closest(".slider");
seen.step = slider.querySelector("output").textContent + "/" + range.getAttribute("aria-valuetext");
seen.moved = [...slider.querySelectorAll(".frame")].map((each) => each.style.getPropertyValue("--at"));
const heading = [...document.querySelectorAll(".sortable th")].find((each) => each.textContent.startsWith("mean"));
const column = [...heading.parentElement.children].indexOf(heading);
const rows = () => [...heading.closest("table").tBodies[0].rows];
const values = () => rows().map((row) => parseFloat(row.children[column].dataset.exact));
heading.firstChild.click();
seen.rising = [heading.getAttribute("aria-sort"), values()];
heading.firstChild.click();
seen.falling = [heading.getAttribute("aria-sort"), values()];
const search = document.querySelector("input[type=search]");
search.value = "1.1 0.300";
search.dispatchEvent(new Event("input"));
const found = document.getElementById(search.dataset.searches).tBodies[0].rows;
seen.found = [...found].filter((row) => !row.hidden).length;
seen.width = innerWidth;
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.title = JSON.stringify(seen);
"""

FRAME = """<!DOCTYPE html><html><head><link rel="icon" href="data:,"></head><body>
<iframe style="width:{width}px;height:900px;border:0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => {{ document.title = frame.contentDocument.title; }};
frame.srcdoc = {page};
</script></body></html>"""

pytestmark = [pytest.mark.slow, NEEDS_BROWSER]


def visit(path, width, profile):
    """(what was seen, messages of the console) of a page in a frame of a width, since windows have a least one."""
    text = path.read_text(encoding="utf-8").replace("</body>", f"<script>{{{VISIT}}}</script></body>")
    framed = path.with_name("visited.html")
    shown = json.dumps(text).replace("<", "\\u003c")
    framed.write_text(FRAME.format(width=width, page=shown), encoding="utf-8")
    done = subprocess.run(
        [str(BROWSER), *DUMP, f"--user-data-dir={profile}", "--window-size=1400,1000", f"file://{framed}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "HOME": str(profile)},
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr
    return json.loads(unescape(title[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_finds_scores_pictures_and_order_by_keyboard_and_click(tmp_path, width):
    publish(make_report(), **vars(MadeUpRun(tmp_path)))
    seen, messages = visit(tmp_path / "report.html", width, tmp_path / "profile")
    assert messages == []
    assert (seen["width"], seen["wide"]) == (width, 0)
    assert seen["focused"] == "up 2.1, step 3: 0.80"
    assert seen["reached"] == 1
    assert "up 2.1 at step 3: Dice 0.800 [0.700, 0.900] over 20 images." in seen["panel"]
    assert "Of one test image: a <cube>" in seen["panel"]
    assert seen["frames"] == ["2", "2", "0"]  # the image, the probe, and the label that stays
    assert seen["step"] == "2/step 2"
    assert set(seen["moved"]) == {"1"}
    for name, order in (("rising", "ascending"), ("falling", "descending")):
        told, values = seen[name]
        assert told == order
        assert values == sorted(values, reverse=order == "descending")
        assert len(set(values)) == 4
    assert seen["found"] == 8

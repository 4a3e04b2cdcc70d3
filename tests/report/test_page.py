"""report.html: one file, well nested, that says what the report says."""

import io
import re
from base64 import b64decode
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diffprobe.report.page import LARGEST, MANY, MOST, cell_colours, figure_uri, page_html, strip_uri
from diffprobe.report.publish import publish
from diffprobe.report.report import Cell, Frames, Headed, HeatMap, Report
from tests.report.checking import Checked
from tests.report.made_up_report import LAYERS, STEPS, MadeUpRun, make_report, make_table, make_view


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    publish(make_report(), **vars(MadeUpRun(folder)))
    return Checked((folder / "report.html").read_text(encoding="utf-8"))


def test_it_needs_nothing_from_outside_and_forbids_it(page):
    assert page.outside == []
    policies = [given["content"] for name, given in page.elements if "http-equiv" in given]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"]


def test_it_is_well_nested_and_every_identity_is_given_once(page):
    assert page.faults == []
    assert [name for name, times in Counter(page.identities).items() if times > 1] == []


def test_links_and_labels_lead_to_something_that_is_there(page):
    there = set(page.identities)
    links = {given["href"][1:] for name, given in page.elements if name == "a"}
    labels = {given["for"] for name, given in page.elements if name in ("label", "output")}
    assert len(links) == 7
    assert links | labels <= there


def test_texts_are_escaped_and_no_text_ends_a_block_of_data(page):
    assert "pocket <b>& co</b>" in page.text
    assert "python train.py 'a=\"b\"'" in page.text
    heat = replace(make_report().heatmaps[0], caption="</script><script>alert(1)")
    assert page_html(Report("x", heatmaps=[heat])).count("</script>") == 2  # the data and the page's own


def test_every_picture_says_what_it_is_or_has_a_frame_that_does(page):
    frames = [given for _, given in page.elements if given.get("class") == "frame"]
    assert all(given["aria-label"] for given in frames)
    described = [given["alt"] for name, given in page.elements if name == "img" and given["alt"]]
    assert described == ["Scores over steps.", "layers saliency"]
    assert len([name for name, _ in page.elements if name == "img"]) == 2 + len(frames)


def test_every_layer_and_step_has_a_cell_and_one_of_a_map_is_reached_by_tab(page):
    cells = [given for name, given in page.elements if name == "button" and "data-row" in given]
    assert len(cells) == len(LAYERS) * STEPS
    assert sum(given["tabindex"] == "0" for given in cells) == 1
    assert "up 2.1, step 3: 0.80" in {given["aria-label"] for given in cells}


def test_sentences_have_the_short_names_of_layers(page):
    assert "the probe on up 2.1 reaches" in page.text
    assert LAYERS[1] not in page.text


def test_parts_that_there_are_none_of_are_not_mentioned():
    page = Checked(page_html(Report("nothing")))
    assert page.faults == []
    assert "Tables" not in page.text
    assert "Figures" not in page.text


def test_a_score_that_is_missing_is_a_cell_that_says_so():
    heat = HeatMap("depth", "rank correlation", {("a", 0): Cell(None), ("b", 0): Cell(0.5), ("b", 2): Cell(0.5)})
    page = Checked(page_html(Report("run", heatmaps=[heat])))
    labels = [given["aria-label"] for name, given in page.elements if name == "button" and "data-row" in given]
    assert labels == ["a, step 1: no score", "a, step 3: no score", "b, step 1: 0.50", "b, step 3: 0.50"]


def test_maps_of_several_runs_have_one_scale_of_colours_and_know_each_others_cells():
    page = Checked(page_html(Report("runs", side_by_side=[make_view()])))
    assert page.faults == page.outside == []
    cells = [given for name, given in page.elements if name == "button" and "data-same" in given]
    assert [(given["aria-label"], given["data-same"]) for given in cells] == [
        ("up 1.1, step 1: 0.20", "0-0"), ("up 1.1, step 2: 0.40", "0-1"),
        ("up 2.1, step 1: 0.50", "1-0"), ("up 2.1, step 2: no score", "1-1"),
        ("up 1.1, step 1: 0.90", "0-0"), ("up 1.1, step 2: no score", "0-1"), ("up 1.1, step 3: 0.70", "0-2"),
    ]  # fmt: skip
    colours = cell_colours([0.2, 0.4, 0.5, 0.7, 0.9], "viridis")
    styles = {given["aria-label"][-4:]: given["style"] for given in cells if "style" in given}
    assert styles == {f"{value:.2f}": f"background:{ground};color:{ink}" for value, (ground, ink) in colours.items()}
    assert sum(given["tabindex"] == "0" for given in cells) == 2  # one a map
    assert "One scale of colours for all runs: 0.20" in page.text
    assert "run <one>" in page.text


def test_every_heading_is_a_button_that_sorts_by_numbers_and_says_what_it_holds():
    page = page_html(Report("run", tables={"scores": make_table()}))
    assert Checked(page).elements.count(("button", {"type": "button"})) == 4
    assert 'data-exact="0.3,0.25,0.35"' in page
    assert "In all rows: model pocket." in page
    assert 'title="denoising step, counted from 1"' in page


def test_long_tables_are_folded_with_a_search_and_say_when_only_their_first_rows_are_shown():
    short, long, cut = (page_html(Report("run", tables={"t": make_table(rows)})) for rows in (MANY, MANY + 1, MOST + 1))
    assert "<label" not in short
    assert '<input type="search"' in long
    assert f"the first {MOST} of {MOST + 1} rows" in cut
    assert len([name for name, _ in Checked(cut).elements if name == "tr"]) == MOST + 1


def test_a_table_without_rows_says_so_and_one_for_files_alone_is_not_on_the_page():
    tables = {"drift": make_table(0), "scores": make_table(show=["csv"])}
    text = Checked(page_html(Report("run", tables=tables))).text
    assert "drift: no rows." in text
    assert "scores" not in text


def test_pictures_over_steps_are_strips_no_larger_than_they_are_seen():
    def opened(frames):
        return Image.open(io.BytesIO(b64decode(strip_uri(frames).partition(",")[2])))

    maps = np.stack([np.full((8, 4), 0.0), np.full((8, 4), 2.0)])
    strip = np.asarray(opened(Frames(maps, low=0.0, high=2.0)).convert("RGB"))
    assert strip.shape == (8, 8, 3)
    assert (strip[0, 0].tolist(), strip[0, 4].tolist()) == ([0, 0, 0], [255, 255, 255])
    large = opened(Frames(np.zeros((3, 512, 256, 3))))
    assert (large.size, large.format) == ((3 * LARGEST // 2, LARGEST), "JPEG")


def test_a_figure_of_photographs_is_made_smaller_and_one_of_lines_is_left_as_it_is(tmp_path):
    Image.effect_noise((900, 900), 60).convert("RGB").save(tmp_path / "noise.png")
    Image.new("RGB", (900, 900), "white").save(tmp_path / "plain.png")
    assert figure_uri(tmp_path / "plain.png").startswith("data:image/png;")
    small = figure_uri(tmp_path / "noise.png")
    assert small.startswith("data:image/jpeg;")
    assert len(small) < 4 / 3 * (tmp_path / "noise.png").stat().st_size


def test_findings_stand_under_their_headings():
    page = page_html(Report("Two", findings=["Before.", Headed("depth", ["First.", "Second."]), "After.", "Last."]))
    lists = re.findall(r'(<h3>\w+</h3>\s*)?<ul class="verdict">(.*?)</ul>', page, re.DOTALL)
    assert [(heading.strip(), re.findall("<li>(.*?)</li>", lines)) for heading, lines in lists] == [
        ("", ["Before."]),
        ("<h3>depth</h3>", ["First.", "Second."]),
        ("", ["After.", "Last."]),
    ]

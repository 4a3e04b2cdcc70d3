"""report.html: one file, well nested, that says what the tables say."""

from collections import Counter

import numpy as np
import pytest

from diffprobe.report.page.html import LARGEST, figure_uri, film_uri
from diffprobe.report.page.page import Cell, Film, HeatMap, Page
from diffprobe.report.page.writing import page_html, write_page
from tests.report.made_up_run import BEST, LAYERS, STEPS
from tests.report.page.checking import Checked
from tests.report.page.made_up_page import make_page


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 0 # <all>\n")
    return write_page(folder, make_page(folder))


@pytest.fixture(scope="module")
def page(written):
    return Checked(written.read_text(encoding="utf-8"))


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


def test_what_is_no_element_is_text(page):
    assert "pocket <b>& co</b>" in page.text
    assert "python train.py 'a=\"b\"'" in page.text
    assert "seed: 0 # <all>" in page.text


def test_every_picture_says_what_it_is_or_has_a_frame_that_does(page):
    frames = [given for _, given in page.elements if given.get("class") == "frame"]
    assert all(given["aria-label"] for given in frames)
    described = [given for name, given in page.elements if name == "img" and given["alt"]]
    assert len(described) == 4  # the figures; the others are in frames
    assert len([name for name, _ in page.elements if name == "img"]) == 4 + len(frames)


def test_every_layer_and_step_has_a_cell_and_one_of_a_map_is_reached_by_tab(page):
    cells = [given for name, given in page.elements if name == "button" and "data-row" in given]
    assert len(cells) == 3 * len(LAYERS) * STEPS
    assert sum(given["tabindex"] == "0" for given in cells) == 3
    assert f"up 2.1, step {STEPS}: 0.88" in {given["aria-label"] for given in cells}


def test_sentences_have_the_short_names_of_layers(page):
    verdict = page.text.split("What was asked")[1]  # after the links
    assert "the probe on up 2.1 reaches" in verdict
    assert BEST not in page.text


def test_the_default_run_is_far_below_ten_megabytes(written):
    assert written.stat().st_size < 5e6


def test_parts_that_there_are_none_of_are_not_mentioned():
    page = Checked(page_html(Page("nothing")))
    assert page.faults == []
    assert "Tables" not in page.text
    assert "Figures" not in page.text


def test_a_score_that_is_missing_is_a_cell_that_says_so():
    heat = HeatMap("depth", "rank correlation", {("a", 0): Cell(None), ("b", 0): Cell(0.5), ("b", 2): Cell(0.5)})
    page = Checked(page_html(Page("run", heat_maps=[heat])))
    labels = [given["aria-label"] for name, given in page.elements if name == "button"]
    assert labels == ["a, step 1: no score", "a, step 3: no score", "b, step 1: 0.50", "b, step 3: 0.50"]


def test_films_are_strips_of_frames_no_larger_than_they_are_seen():
    import io
    from base64 import b64decode

    from PIL import Image

    def opened(film):
        return Image.open(io.BytesIO(b64decode(film_uri(film).partition(",")[2])))

    maps = np.stack([np.full((8, 4), 0.0), np.full((8, 4), 2.0)])
    strip = np.asarray(opened(Film(maps, low=0.0, high=2.0)).convert("RGB"))
    assert strip.shape == (8, 8, 3)
    assert (strip[0, 0].tolist(), strip[0, 4].tolist()) == ([0, 0, 0], [255, 255, 255])
    large = opened(Film(np.zeros((3, 512, 256, 3))))
    assert (large.size, large.format) == ((3 * LARGEST // 2, LARGEST), "JPEG")


def test_a_figure_of_photographs_is_made_smaller_and_one_of_lines_is_left_as_it_is(tmp_path):
    from PIL import Image

    Image.effect_noise((900, 900), 60).convert("RGB").save(tmp_path / "noise.png")
    Image.new("RGB", (900, 900), "white").save(tmp_path / "plain.png")
    assert figure_uri(tmp_path / "plain.png").startswith("data:image/png;")
    small = figure_uri(tmp_path / "noise.png")
    assert small.startswith("data:image/jpeg;")
    assert len(small) < 4 / 3 * (tmp_path / "noise.png").stat().st_size

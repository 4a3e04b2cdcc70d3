"""Rows of data classes as tables."""

from dataclasses import dataclass

from diffprobe.report.page.html import MANY, MOST, sortable_table
from diffprobe.tables import NO_STEP, Step
from tests.report.page.checking import Checked


@dataclass(frozen=True)
class Row:
    model: str
    layer: str
    step: Step
    mean: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""


LAYER = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"
ROWS = [Row("pocket", LAYER, 0, 0.5, 0.4, 0.6, 20), Row("pocket", "a&b", NO_STEP, None, None, None, 0)]


def cells(page: str) -> list[str]:
    return [part.split(">", 1)[1].split("</td")[0] for part in page.split("<td")[1:]]


def test_steps_count_from_one_and_intervals_stand_with_their_mean():
    page = sortable_table("scores", ROWS, "t")
    assert cells(page) == ["up 3.0", "1", "0.500 [0.400, 0.600]", "20", "a&amp;b", "", "", "0"]
    assert 'data-value="0.5"' in page


def test_what_all_rows_share_is_told_once_and_empty_fields_are_not_shown():
    page = sortable_table("scores", ROWS, "t")
    assert "In all rows: model pocket." in page
    assert "note" not in page
    assert page.count("pocket") == 1


def test_every_heading_is_a_button_and_long_tables_are_folded_with_a_search():
    short, long = (sortable_table("scores", ROWS * count, "t") for count in (1, MANY))
    assert Checked(short).elements.count(("button", {"type": "button"})) == 4
    assert "<details>" not in short
    assert "<details>" in long
    assert 'type="search"' in long


def test_a_table_says_when_it_shows_only_its_first_rows():
    page = sortable_table("scores", ROWS[:1] * (MOST + 1), "t")
    assert f"the first {MOST} of {MOST + 1} rows" in page
    assert page.count("<tr>") == MOST + 1


def test_a_table_without_rows_says_so():
    assert "no rows" in sortable_table("drift", [], "t")

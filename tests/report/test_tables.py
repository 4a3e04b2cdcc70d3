"""Tables of numbers as people read them."""

from dataclasses import dataclass

import pytest
from pandas import DataFrame

from diffprobe.files import NO_STEP, Step
from diffprobe.report.report import Table, frame_of
from diffprobe.report.tables import columns_of, latex_table, lines_of, markdown_table, shared_texts

LAYER = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_out.0"


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


ROWS = [Row("pocket", LAYER, 0, 0.5, 0.4, 0.6, 20), Row("pocket", "a&b", NO_STEP, None, None, None, 0)]


def test_steps_count_from_one_and_intervals_stand_with_their_mean():
    assert lines_of(Table.of(Row, ROWS)) == [
        ["layer", "step", "mean [95 %]", "n"],
        ["up 3.0", "1", "0.500 [0.400, 0.600]", "20"],
        ["a&b", "", "", "0"],
    ]


def test_numbers_come_with_the_values_of_all_columns_that_they_show_as_a_file_has_them():
    layer, step, mean, n = columns_of(Table.of(Row, ROWS))
    assert [column.numeric for column in (layer, step, mean, n)] == [False, True, True, True]
    assert [list(column.names) for column in (layer, step, mean)] == [["layer"], ["step"], ["mean", "low", "high"]]
    assert (step.exact, mean.exact) == (["0", ""], ["0.5,0.4,0.6", ""])
    assert layer.shortened


def test_what_all_rows_share_is_told_once_and_empty_columns_are_not_shown():
    assert shared_texts(Table.of(Row, ROWS)) == {"model": "pocket"}
    assert shared_texts(Table.of(Row, ROWS[:1])) == {}
    assert "note" not in lines_of(Table.of(Row, ROWS))[0]


def test_an_interval_of_any_column_is_found_by_its_name():
    data = DataFrame({"gain": [0.1234], "gain_low": [0.1], "gain_high": [0.2], "p_holm": [1e-5]})
    assert lines_of(Table(data)) == [["gain [95 %]", "p (Holm)"], ["0.123 [0.100, 0.200]", "1e-5"]]


def test_a_column_is_described_by_its_table_or_by_what_it_is_everywhere():
    table = Table(DataFrame({"n": [3], "gain": [0.5], "odd": [1]}), columns={"gain": "how much better"})
    assert [column.description for column in columns_of(table)][1:] == ["how much better", ""]
    assert "number of images" in columns_of(table)[0].description


def test_cells_that_are_text_already_are_left_as_they_are():
    table = Table(DataFrame({"mean": [0.123456]}), text=DataFrame({"score": ["0.12 *"]}))
    assert lines_of(table) == [["score"], ["0.12 *"]]


def test_only_the_first_rows_are_made_into_text_where_so_many_are_shown():
    assert [len(column.cells) for column in columns_of(Table.of(Row, ROWS), 1)] == [1, 1, 1, 1]


def test_a_step_that_there_is_none_of_and_a_missing_number_are_empty_cells_of_a_file():
    assert frame_of(Row, ROWS).to_csv(index=False).splitlines()[2] == "pocket,a&b,,,,,0,"


@pytest.mark.parametrize("rows", [[], ROWS])
def test_a_frame_has_the_types_of_its_data_class(rows):
    types = {name: str(kind) for name, kind in frame_of(Row, rows).dtypes.items()}
    assert types == {
        "model": "str", "layer": "str", "step": "Int64", "mean": "float64", "low": "float64", "high": "float64",
        "n": "int64", "note": "str",
    }  # fmt: skip


LINES = [["set", "p"], ["a_b|c", "3.1e-436 / 0.5 ± 0.1"]]


def test_markdown_keeps_its_columns_whatever_is_in_the_cells():
    assert markdown_table(LINES, ["* a note"]).splitlines() == [
        "| set | p |",
        "| --- | --- |",
        "| a_b\\|c | 3.1e-436 / 0.5 ± 0.1 |",
        "",
        "* a note",
    ]


def test_latex_sets_powers_and_escapes_what_it_would_take_for_commands():
    lines = latex_table([["set", "p"], ["a_b & 50 % ^~\\", "3.1e-05 < 1"]], ["note"]).splitlines()

    assert lines[4] == (
        r"a\_b \& 50 \% \textasciicircum{}\textasciitilde{}\textbackslash{} & $3.1 \times 10^{-5}$ $<$ 1 \\"
    )
    assert r"\multicolumn{2}{l}{\footnotesize note} \\" in lines


def test_words_with_digits_are_no_powers():
    assert "encoder16e2x" in latex_table([["encoder16e2x"]])

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP
from diffprobe.probes.controls import selectivity
from diffprobe.probes.score_table import (
    COLUMNS,
    ScoreBlock,
    by_image,
    concatenate,
    group_rows,
    over_steps,
    read_scores,
    row_keys,
    score_table,
    select,
    write_scores,
)
from diffprobe.probes.summaries import summarise
from tests.reference.score_rows import Score, cells_of, rows_of, selectivity_of, summaries_of, table_of

ROWS = [
    Score("a,b", "up.0", 0, 999.0, "depth", "linear", "none", "test", 'scene "1"', "spearman", 0.1 + 0.2),
    Score("m", "position", NO_STEP, None, "saliency", "linear", "position", "validation", "NA", "dice", None),
]
HEADER = "model,layer,step,timestep,property,probe,control,split,image,metric,value\n"
names = st.sampled_from(["a", "b", "NA", "", 'x"y', "ü,z", "line\nbreak"])
_pair = attrgetter("model", "layer", "step", "property", "probe", "split", "image", "metric")
values = st.none() | st.floats(-1, 1) | st.sampled_from([0.0, 1.0])
rows = st.builds(
    Score,
    model=names,
    layer=names,
    step=st.sampled_from([NO_STEP, 0, 1, 999]),
    timestep=st.none() | st.floats(0, 999),
    property=st.sampled_from(["depth", "saliency"]),
    probe=st.just("linear"),
    control=st.sampled_from(["none", "labels"]),
    split=st.sampled_from(["validation", "test"]),
    image=names,
    metric=st.sampled_from(["dice", "spearman", "rmse", "new"]),
    value=values,
)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write_csv(folder: Path, scores: list[Score]) -> None:
    table = pd.DataFrame([[getattr(row, name) for name in COLUMNS] for row in scores], columns=list(COLUMNS))
    table["step"] = table["step"].astype("Int64").replace(NO_STEP, pd.NA)
    (folder / "scores.csv").write_bytes(table.to_csv(index=False).encode())


def test_a_block_becomes_rows_step_by_step_and_image_by_image() -> None:
    block = ScoreBlock(
        *("m", "l", "depth", "linear", "none", "test", "rmse"),
        moments=[(0, 999.0), (4, 1.0)],
        images=["i", "j", "k"],
        values=np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 6.0]]),
    )
    table = score_table([block])
    assert list(table["step"]) == [0, 0, 0, 4, 4, 4]
    assert list(table["image"]) == ["i", "j", "k"] * 2
    assert cells_of(table)[4] == ("m", "l", 4, 1.0, "depth", "linear", "none", "test", "j", "rmse", None)
    with pytest.raises(ValueError, match="steps"):
        score_table([ScoreBlock("m", "l", "depth", "p", "none", "test", "rmse", [(0, 1.0)], ["i"], np.zeros((2, 1)))])


def test_a_table_without_rows_has_the_same_columns() -> None:
    assert list(score_table([]).columns) == list(COLUMNS)
    assert list(summarise(score_table([])).columns)[-4:] == ["mean", "low", "high", "n"]


def test_a_row_takes_few_bytes() -> None:
    images = [f"image {number}" for number in range(500)]
    moments = [(step, 999.0 - step) for step in range(15)]
    blocks = [
        ScoreBlock("m", f"layer {layer}", "depth", "p", "none", "test", "rmse", moments, images, np.ones((15, 500)))
        for layer in range(16)
    ]
    table = score_table(blocks)
    assert table.memory_usage(deep=True).sum() / len(table) < 30


@quick
@given(st.lists(rows, max_size=30))
def test_scores_come_back_as_they_were(tmp_path: Path, scores: list[Score]) -> None:
    write_scores(tmp_path, table_of(scores))
    found = read_scores(tmp_path)
    assert rows_of(found) == scores
    assert found.dtypes.astype(str).equals(table_of(scores).dtypes.astype(str))


@quick
@given(st.lists(rows, max_size=30))
def test_a_table_of_the_first_edition_gives_the_same(tmp_path: Path, scores: list[Score]) -> None:
    write_csv(tmp_path, scores)
    assert rows_of(read_scores(tmp_path)) == scores


@quick
@given(st.lists(rows, max_size=60), st.booleans())
def test_summaries_are_those_of_one_key_after_the_other(scores: list[Score], differences: bool) -> None:
    found = cells_of(summarise(table_of(scores), differences=differences))
    expected = summaries_of(scores, differences=differences)
    assert [row[:9] for row in found] == [row[:9] for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert [cell is None for cell in row] == [cell is None for cell in wanted]
        assert [cell for cell in row[9:] if cell is not None] == pytest.approx(
            [cell for cell in wanted[9:] if cell is not None]
        )


@quick
@given(st.lists(rows, min_size=1, max_size=30, unique_by=_pair), values)
def test_selectivity_is_that_of_one_row_after_the_other(scores: list[Score], shuffled: float | None) -> None:
    real = [replace(row, control="none") for row in scores]
    pairs = real + [replace(row, control="labels", value=shuffled) for row in reversed(real)]
    found, expected = cells_of(selectivity(table_of(pairs))), selectivity_of(pairs)
    assert [row[:9] for row in found] == [row[:9] for row in expected]
    assert [row[9] for row in found] == pytest.approx([row[9] for row in expected], nan_ok=True)


def test_rows_of_several_tables_come_together() -> None:
    other = [ROWS[1], Score("new", "l", 3, 1.0, "depth", "ridge", "none", "test", "i", "rmse", 2.0)]
    together = concatenate([table_of(ROWS), table_of(other)])
    assert rows_of(together) == [*ROWS, *other]
    assert str(together["model"].dtype) == "category"


def test_selected_rows_have_the_values_and_missing_steps_are_not_among_them() -> None:
    table = table_of(ROWS)
    assert rows_of(select(table, step=0)) == [ROWS[0]]
    assert rows_of(select(table, control="position", property="saliency")) == [ROWS[1]]
    assert not len(select(table, model="nobody"))


@quick
@given(st.lists(rows, max_size=40))
def test_groups_hold_every_row_once_in_the_order_of_first_rows(scores: list[Score]) -> None:
    groups = group_rows(table_of(scores), ["layer", "step"])
    found = [groups.order[start : start + size] for start, size in zip(groups.starts, groups.sizes, strict=True)]
    expected: dict[tuple, list[int]] = {}
    for place, row in enumerate(scores):
        expected.setdefault((row.layer, row.step), []).append(place)
    assert [list(places) for places in found] == list(expected.values())


def test_more_combinations_than_integers_are_told_apart() -> None:
    random = np.random.default_rng(0)
    codes = np.stack([random.permutation(2**13) for _ in range(6)])  # 2^78 combinations
    codes[:, 1::2] = codes[:, ::2]  # each row twice
    table = pd.DataFrame({name: pd.Categorical(column) for name, column in zip("abcdef", codes, strict=True)})
    keys = row_keys(table, list("abcdef"))
    assert len(set(keys)) == 2**12
    assert (keys[::2] == keys[1::2]).all()


def test_images_come_side_by_side_and_missing_rows_are_told_from_undefined_values() -> None:
    blank = Score("m", "l", 1, 1.0, "depth", "p", "none", "test", "i", "rmse", 0.5)
    scores = [blank, Score("m", "l", 0, 2.0, "depth", "p", "none", "test", "j", "rmse", None)]
    found = by_image(table_of(scores), ["step"])
    assert found.there.tolist() == [[True, False], [False, True]]
    assert np.isnan(found.values).tolist() == [[False, True], [True, True]]
    steps, images, values = over_steps(table_of(scores))
    assert (steps, images, np.isnan(values).tolist()) == ([0, 1], ["i"], [[True], [False]])
    with pytest.raises(UserError, match="two rmse scores of image 'i' for depth at l, step 2"):
        by_image(table_of([blank, blank]), ["step"])


def test_missing_scores_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no scores\.parquet"):
        read_scores(tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write_scores(tmp_path, table_of(ROWS))
    pq.write_table(pq.read_table(path).rename_columns([*list(COLUMNS)[:-1], "score"]), path)
    with pytest.raises(UserError, match=r"scores\.parquet lacks the column 'value'"):
        read_scores(tmp_path)
    path.unlink()
    (tmp_path / "scores.csv").write_text(HEADER.replace("value", "score"))
    with pytest.raises(UserError, match=r"scores\.csv lacks the column 'value'"):
        read_scores(tmp_path)


def test_a_column_of_another_kind_is_named(tmp_path: Path) -> None:
    path = write_scores(tmp_path, table_of(ROWS))
    table = pq.read_table(path)
    texts = pa.array(["high", "low"])
    pq.write_table(table.set_column(table.schema.get_field_index("value"), "value", texts), path)
    with pytest.raises(UserError, match=r"scores\.parquet.*(high|low)"):
        read_scores(tmp_path)
    nobody = pa.array(["m", None])
    pq.write_table(table.set_column(0, "model", nobody), path)
    with pytest.raises(UserError, match=r"scores\.parquet: 1 rows have no model"):
        read_scores(tmp_path)


@pytest.mark.parametrize("place", range(0, 1000, 50))
def test_a_damaged_file_is_named_and_never_read(tmp_path: Path, place: int) -> None:
    path = write_scores(tmp_path, table_of(ROWS * 100))
    whole = bytearray(path.read_bytes())
    at = place * len(whole) // 1000
    path.write_bytes(whole[:at])
    with pytest.raises(UserError, match=r"scores\.parquet is damaged"):
        read_scores(tmp_path)
    whole[at] ^= 0xFF
    path.write_bytes(whole)
    with suppress(UserError):  # unless the byte says nothing of the rows
        assert rows_of(read_scores(tmp_path)) == ROWS * 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + "m,up.0\n", "11 columns"),
        (HEADER + "m,l,0,late,depth,p,none,test,i,rmse,1\n", "late"),
        (HEADER + "m,l,0.5,1,depth,p,none,test,i,rmse,1\n", "0.5"),
        ("", "damaged"),
    ],
)
def test_a_damaged_table_of_the_first_edition_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(UserError, match=rf"scores\.csv.*{said}"):
        read_scores(tmp_path)


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_bytes(HEADER.encode() + b"m\xff,l,0,1,depth,p,none,test,i,rmse,1\n")
    with pytest.raises(UserError, match=r"scores\.csv is damaged"):
        read_scores(tmp_path)


def test_a_table_that_a_spreadsheet_saved_comes_back(tmp_path: Path) -> None:
    write_csv(tmp_path, ROWS)
    path = tmp_path / "scores.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert rows_of(read_scores(tmp_path)) == ROWS


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = write_scores(tmp_path, table_of(ROWS))
    broken = table_of(ROWS).assign(value=[object(), object()])
    with pytest.raises(pa.ArrowException):
        write_scores(tmp_path, broken)
    assert rows_of(read_scores(tmp_path)) == ROWS
    assert list(tmp_path.iterdir()) == [path]


def test_columns_of_a_csv_file_may_stand_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(
        "value,metric,image,split,control,probe,property,timestep,step,layer,model\n"
        "0.5,dice,i,test,none,linear,saliency,1.0,2,l,m\n"
    )
    assert rows_of(read_scores(tmp_path)) == [
        Score("m", "l", 2, 1.0, "saliency", "linear", "none", "test", "i", "dice", 0.5)
    ]

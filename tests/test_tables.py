from __future__ import annotations

from pathlib import Path

import pytest

from diffprobe.errors import UserError
from diffprobe.files import NO_STEP, read_rows
from diffprobe.probes.summaries import Summary
from diffprobe.report.report import frame_of
from tests.reference.score_rows import Score

SCORES = [
    Score("a,b", "up.0", 0, 999.0, "depth", "linear", "none", "test", 'scene "1"', "spearman", 0.1 + 0.2),
    Score("m", "position", NO_STEP, None, "saliency", "linear", "position", "validation", "s", "dice", None),
]
SUMMARIES = [
    Summary("m", "up.0", 3, 1 / 3, "depth", "linear", "none", "test", "rmse", 1e-17, 0.0, 2 / 3, 40),
    Summary("m", "position", NO_STEP, None, "depth", "linear", "position", "test", "pearson", None, None, None, 0),
]


def write_rows(path: Path, kind: type, rows: list) -> None:
    frame_of(kind, rows).to_csv(path, index=False, lineterminator="\n")


def test_scores_come_back_with_full_precision(tmp_path: Path) -> None:
    write_rows(tmp_path / "scores.csv", Score, SCORES)
    assert read_rows(tmp_path / "scores.csv", Score) == SCORES
    assert (tmp_path / "scores.csv").read_text().splitlines() == [
        "model,layer,step,timestep,property,probe,control,split,image,metric,value",
        '"a,b",up.0,0,999.0,depth,linear,none,test,"scene ""1""",spearman,0.30000000000000004',
        "m,position,,,saliency,linear,position,validation,s,dice,",
    ]


def test_summaries_come_back(tmp_path: Path) -> None:
    write_rows(tmp_path / "summary.csv", Summary, SUMMARIES)
    assert read_rows(tmp_path / "summary.csv", Summary) == SUMMARIES
    header = (tmp_path / "summary.csv").read_text().splitlines()[0]
    assert header == "model,layer,step,timestep,property,probe,control,split,metric,mean,low,high,n"


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_rows(path, Score, SCORES)
    path.write_text(path.read_text().replace(",value", ",score"))
    with pytest.raises(UserError, match="lacks the column 'value'"):
        read_rows(path, Score)


def test_a_missing_file_and_a_short_line_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with pytest.raises(UserError, match=r"scores\.csv"):
        read_rows(path, Score)
    write_rows(path, Score, SCORES)
    path.write_text(path.read_text() + "m,up.0\n")
    with pytest.raises(UserError, match="line 4"):
        read_rows(path, Score)


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_rows(path, Score, SCORES)
    path.write_text(path.read_text().replace("999.0", "late"))
    with pytest.raises(UserError, match=r"scores\.csv.*'late'"):
        read_rows(path, Score)


def test_a_table_that_a_spreadsheet_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_rows(path, Score, SCORES)
    text = path.read_text(encoding="utf-8").replace("\n", "\r\n")
    path.write_bytes(f"\ufeff{text}\r\n".encode())
    assert read_rows(path, Score) == SCORES


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_rows(path, Score, SCORES)
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    with pytest.raises(UserError, match=r"scores\.csv is damaged: byte 0 is not UTF-8"):
        read_rows(path, Score)


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(
        "value,metric,image,split,control,probe,property,timestep,step,layer,model\n"
        "0.5,dice,i,test,none,linear,saliency,1.0,2,l,m\n"
    )
    assert read_rows(path, Score) == [Score("m", "l", 2, 1.0, "saliency", "linear", "none", "test", "i", "dice", 0.5)]

"""Files are there whole or not at all, and tensors are what their checksums say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffprobe.files import (
    Damaged,
    move_durably,
    read_sealed,
    remove_leftovers,
    replacing,
    sealed,
    temporary_beside,
    write_text,
)


def of_process(path, process):
    return path.with_name(path.name.replace(f".{os.getpid()}.", f".{process}."))


def test_files_of_dead_processes_of_this_machine_are_removed(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    own = temporary_beside(tmp_path / "figure.png", ".png")
    left = of_process(temporary_beside(tmp_path / "figure.png", ".png"), dead.pid)
    table = of_process(temporary_beside(tmp_path / "scores.csv"), dead.pid)
    elsewhere = tmp_path / f".scores.csv.elsewhere.{dead.pid}.0a1b2c3d.tmp"
    named = tmp_path / ".notes.tmp"
    for path in (own, left, table, elsewhere, named):
        path.write_text("half")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {own.name, elsewhere.name, named.name}
    remove_leftovers(tmp_path, all_machines=True)
    assert [path.name for path in tmp_path.iterdir()] == [named.name]


def test_a_temporary_file_keeps_the_suffix_that_chooses_a_format(tmp_path):
    with replacing(tmp_path / "figure.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


def test_a_durable_move_replaces_a_file_or_leaves_it(tmp_path):
    path, temporary = tmp_path / "manifest.json", tmp_path / "new"
    for text, overwrite, expected in (("one", False, "one"), ("two", False, "one"), ("three", True, "three")):
        temporary.write_text(text)
        move_durably(temporary, path, overwrite=overwrite)
        assert path.read_text() == expected


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text(tmp_path / "report.txt", "old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_text_makes_missing_folders(tmp_path):
    assert write_text(tmp_path / "a" / "b.txt", "tiefe ü").read_text(encoding="utf-8") == "tiefe ü"


TENSORS = {
    "a/step_0": torch.tensor([[1.0, float("nan"), -3.0]]),
    "b": torch.arange(4).half(),
    "none": torch.zeros(0, 3),
    "one": torch.tensor(2.0),
}
METADATA = {"images": "0-3", "of": "something"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "kept.safetensors", sealed(TENSORS, METADATA))
    return tmp_path / "kept.safetensors"


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        one.dtype == TENSORS[name].dtype and torch.equal(one.nan_to_num(7), TENSORS[name].nan_to_num(7))
        for name, one in found.items()
    )


def test_what_was_written_is_read(file: Path) -> None:
    tensors, metadata = read_sealed(file)
    assert same(tensors)
    assert metadata == METADATA
    assert list(read_sealed(file, ["b", "absent"])[0]) == ["b"]


@pytest.mark.parametrize("bit", [0, 3, 6])
def test_no_changed_byte_changes_what_is_read(file: Path, bit: int) -> None:
    whole = file.read_bytes()
    changed = 0
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            tensors, metadata = read_sealed(file)
        except Damaged:
            changed += 1
            continue
        assert same(tensors), place
        assert metadata == METADATA, place
    assert changed > 0.9 * len(whole)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_file_that_is_cut_short_is_damaged(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(Damaged):
        read_sealed(file)


def test_a_file_of_something_else_or_without_checksums_is_not_believed(file: Path, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="something else"):
        read_sealed(file, expected={**METADATA, "images": "4-7"})
    save_file(TENSORS, tmp_path / "bare.safetensors", METADATA)
    with pytest.raises(Damaged, match="no checksum"):
        read_sealed(tmp_path / "bare.safetensors")
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "absent.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("folder", "pipe"):
        with pytest.raises(Damaged, match="no file"):
            read_sealed(tmp_path / f"{name}.safetensors")

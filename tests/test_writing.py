"""Temporary files of the dead are removed, those of the living stay."""

from __future__ import annotations

import os
import subprocess

from diffprobe.files import move_durably, remove_leftovers, replacing, temporary_beside


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

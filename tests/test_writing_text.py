"""Files are there whole or not at all."""

import pytest

from diffprobe.files import replacing, write_text


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

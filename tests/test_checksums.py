"""Whatever byte of a sealed file is changed, it is damaged or says the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffprobe.files import Damaged, read_sealed, sealed

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

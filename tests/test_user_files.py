"""What a user gives is opened in one place: regular files only, few kinds of picture, bounded memory."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffprobe import user_files
from diffprobe.errors import UserError
from diffprobe.user_files import opened_picture, read_array, read_file

POSTSCRIPT = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def blank_png(path: Path, width: int, height: int, mode: int = 6, depth: int = 8) -> None:
    """A PNG file of zeros, packed tightly, whatever its size; mode 0 is grey, 2 RGB, 6 RGBA."""
    row = b"\0" * (1 + (width * {0: 1, 2: 3, 6: 4}[mode] * depth + 7) // 8)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, depth, mode, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def decode(path: Path, **options) -> None:
    with opened_picture(path, **options) as (picture, _):
        picture.load()


@pytest.fixture
def special(tmp_path) -> dict[str, Path]:
    """Whatever is no regular file, under names of pictures."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # names of sockets are short
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
    kinds = {"pipe": "a pipe", "zero": "a device", "folder": "a folder", "socket": "a socket"}
    return {kind: tmp_path / f"{name}.png" for name, kind in kinds.items()}


def test_what_is_no_regular_file_is_refused_at_once(special, tmp_path):
    for kind, path in special.items():
        with pytest.raises(UserError, match=rf"cannot read the list .*{path.name}: it is {kind}, not a regular file"):
            read_file(path, "the list")
        with pytest.raises(UserError, match=f"it is {kind}"):
            decode(path)
        with pytest.raises(UserError, match=f"it is {kind}"):
            read_array(path)
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "none", "a\0b"):
        with pytest.raises(UserError, match="cannot read the file"):
            read_file(tmp_path / name)


def test_a_file_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x" * 101)
    monkeypatch.setattr(user_files, "LARGEST_FILE", 100)
    with pytest.raises(UserError, match=r"a\.png: it is larger than"):
        read_file(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"x" * 100)
    assert read_file(tmp_path / "a.png") == b"x" * 100


@pytest.mark.parametrize("text", [POSTSCRIPT, "%PDF-1.4\n", "<html>403</html>", "version https://git-lfs\n", ""])
def test_only_pictures_are_opened_whatever_the_name_says(tmp_path, text, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("another program was started"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("another program was started"))
    (tmp_path / "x.png").write_text(text)
    with pytest.raises(UserError, match=r"cannot read the image .*x\.png: it is (empty|not a picture of a kind)"):
        decode(tmp_path / "x.png")


def test_a_picture_may_be_of_another_allowed_kind_than_its_name_says(tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "x.bmp")
    (tmp_path / "x.bmp").rename(tmp_path / "x.png")
    with opened_picture(tmp_path / "x.png") as (picture, stored):
        assert (picture.format, stored) == ("BMP", (9, 7))
    with pytest.raises(UserError, match=r"x\.png: it is not a picture .*\(PNG\)"):
        decode(tmp_path / "x.png", kinds=("PNG",))


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, recwarn):
    blank_png(tmp_path / "a.png", 13300, 13300, 0, 1)
    blank_png(tmp_path / "b.png", 30000, 30000, 0, 1)
    for name in ("a", "b"):
        with pytest.raises(UserError, match=rf"{name}\.png: it (is 13300 x 13300|has more) .*120,000,000.*smaller"):
            decode(tmp_path / f"{name}.png")
    assert not [str(found.message) for found in recwarn]  # one line, not two


def test_a_large_jpeg_file_is_decoded_smaller(tmp_path, monkeypatch):
    picture = Image.new("RGB", (801, 400), (200, 10, 10))
    picture.paste((10, 10, 200), (400, 0, 801, 400))
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "b.jpg", quality=95, progressive=True)
    for limit, size in ((320_400, (801, 400)), (320_399, (401, 200)), (80_199, (201, 100)), (5100, (101, 50))):
        monkeypatch.setattr(user_files, "LARGEST_PICTURE", limit)
        with opened_picture(tmp_path / "a.jpg") as (found, stored):
            pixels = np.asarray(found).astype(int)
            assert (found.size, stored) == (size, (801, 400))
            assert np.abs(pixels[5, 5] - (200, 10, 10)).max() < 10
            assert np.abs(pixels[-5, -5] - (10, 10, 200)).max() < 10
    for name in ("a", "b"):
        monkeypatch.setattr(user_files, "LARGEST_PICTURE", 5000)
        with pytest.raises(UserError, match="801 x 400 pixels, more than"):
            decode(tmp_path / f"{name}.jpg")


def test_threads_decode_no_more_pixels_at_once_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(user_files, "LARGEST_PICTURE", 250)
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    inside, most = [], []

    def look() -> None:
        with opened_picture(tmp_path / "a.png") as (picture, _):
            inside.append(picture)
            most.append(len(inside))
            threading.Event().wait(0.02)
            inside.pop()

    threads = [threading.Thread(target=look) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 7
    assert max(most) == 2


def test_a_transparent_picture_takes_little_more_memory_than_twice_its_pixels(tmp_path):
    blank_png(tmp_path / "a.png", 4000, 4000)
    code = f"""
import resource
from pathlib import Path
import PIL.Image
from diffprobe.data.images import open_upright
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_upright(Path({str(tmp_path / "a.png")!r})) as picture:
    assert picture.mode == "RGB"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) * 1024 / 4000**2 < 13  # bytes a pixel: four of RGBA, four of RGB, and what is constant


# Arrays


def test_an_array_of_numbers_is_read_and_nothing_else(tmp_path):
    np.save(tmp_path / "good.npy", np.arange(6.0).reshape(2, 3))
    assert read_array(tmp_path / "good.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, a=np.ones(2))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**7, 10**7)})
    (tmp_path / "false.npy").write_bytes(header.getvalue())
    for name in ("objects", "words", "complex", "several", "cut", "false"):
        with pytest.raises(UserError, match=rf"cannot read the map .*{name}\.npy: "):
            read_array(tmp_path / f"{name}.npy", "the map")
    assert zipfile.is_zipfile(tmp_path / "several.npy")

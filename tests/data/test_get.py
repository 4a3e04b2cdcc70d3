"""Data sets are downloaded, resumed, compared with their checksums, unpacked, and checked file by file."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffprobe.data import get as module
from diffprobe.data.get import DATA_SETS, Archive, Contents, DataSet, check, commands, get, main, whole
from diffprobe.errors import UserError

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def picture(kind: str, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


FILES = {f"Set/images/{number}.jpg": picture("JPEG", number) for number in range(3)} | {
    "Set/masks/0.png": picture("PNG"),
    "Set/list.txt": b"0\n1\n2\n",
}
CONTENTS = (Contents("Set/images", ".jpg", 3), Contents("Set/masks", ".png", 1), Contents("Set", ".txt", 1))


def packed(kind: str, files: dict[str, bytes] = FILES) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


class Server(BaseHTTPRequestHandler):
    """Serves one file, from where it is asked for."""

    data = b""
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        start = self.headers.get("Range")
        type(self).asked.append(start)
        first = int(start.removeprefix("bytes=").rstrip("-")) if start else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {first}-{len(self.data) - 1}/{len(self.data)}")
        self.send_header("Content-Length", str(len(self.data) - first))
        self.end_headers()
        self.wfile.write(self.data[first:])

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing."""


@pytest.fixture
def served(request: pytest.FixtureRequest):
    """An archive on a server of this machine, of the kind that the test asks for."""
    kind = getattr(request, "param", "zip")
    Server.data, Server.asked = packed(kind), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/set.{kind}"
    md5 = hashlib.md5(Server.data, usedforsecurity=False).hexdigest()
    yield Archive(f"set.{kind}", url, md5, len(Server.data), 0.001, CONTENTS)
    server.shutdown()
    thread.join()
    server.server_close()


@needs_curl
@pytest.mark.parametrize("served", ["zip", "tar"], indirect=True)
def test_an_archive_is_downloaded_unpacked_and_removed_and_not_asked_for_again(served: Archive, tmp_path: Path) -> None:
    get(served, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
    assert not (tmp_path / served.name).exists()
    assert check(served, tmp_path) == []
    get(served, tmp_path)
    assert Server.asked == [None]


@needs_curl
def test_a_download_goes_on_where_it_stopped(served: Archive, tmp_path: Path) -> None:
    (tmp_path / served.name).write_bytes(Server.data[:100])
    get(served, tmp_path, keep=True)
    assert Server.asked == ["bytes=100-"]
    assert (tmp_path / served.name).read_bytes() == Server.data


@needs_curl
def test_an_archive_that_is_there_is_unpacked_without_network(served: Archive, tmp_path: Path) -> None:
    (tmp_path / served.name).write_bytes(Server.data)
    get(replace(served, size=None, md5=None), tmp_path)
    assert Server.asked == []
    assert check(served, tmp_path) == []


@needs_curl
def test_another_file_than_the_published_one_is_refused(served: Archive, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"MD5 is {served.md5} in place of 0000; delete it"):
        get(replace(served, md5="0000"), tmp_path)
    assert not (tmp_path / "Set").exists()


@needs_curl
def test_no_network_is_one_line_and_keeps_what_came(served: Archive, tmp_path: Path) -> None:
    (tmp_path / served.name).write_bytes(Server.data[:100])
    gone = replace(served, url="http://127.0.0.1:9/set.zip")
    module_command = module._download_command
    without_retries = pytest.MonkeyPatch()
    without_retries.setattr(
        module,
        "_download_command",
        lambda archive, path: [word if word != "5" else "0" for word in module_command(archive, path)],
    )
    with without_retries.context(), pytest.raises(UserError, match=r"exit code is 7.*goes on there"):
        get(gone, tmp_path)
    without_retries.undo()
    assert (tmp_path / served.name).read_bytes() == Server.data[:100]


def test_without_curl_the_file_can_be_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive("set.zip", "http://nowhere/set.zip", None, None, 0.001, CONTENTS)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"no curl .* save the file as"):
        get(archive, tmp_path)
    (tmp_path / "set.zip").write_bytes(packed("zip"))
    get(archive, tmp_path)
    assert check(archive, tmp_path) == []


def test_what_does_not_fit_the_disk_is_refused_first(tmp_path: Path) -> None:
    huge = Archive("set.zip", "http://nowhere/set.zip", None, 10**18, 1.0, CONTENTS)
    with pytest.raises(UserError, match="GB free; give another --root"):
        get(huge, tmp_path)


def test_no_file_is_written_outside_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "set.zip").write_bytes(packed("zip", {"../outside.txt": b"x"}))
    with pytest.raises(UserError, match="outside of"):
        get(Archive("set.zip", "", None, None, 0.001, CONTENTS), root)
    assert not (tmp_path / "outside.txt").exists()


def test_a_damaged_member_is_named_and_not_left_behind(tmp_path: Path) -> None:
    data = bytearray(packed("zip"))
    at = data.index(FILES["Set/images/1.jpg"]) + 50
    data[at] ^= 0xFF
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"damaged at Set/images/1\.jpg"):
        get(Archive("set.zip", "", None, None, 0.001, CONTENTS), tmp_path)
    assert sorted(path.name for path in (tmp_path / "Set/images").iterdir()) == ["0.jpg"]


def unpacked(folder: Path) -> None:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_missing_broken_and_foreign_files_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = Archive("set.zip", "", None, None, 0.001, CONTENTS)
    monkeypatch.setitem(DATA_SETS, "voc", DataSet("A set", "voc", {"all": archive}, ("all",)))
    unpacked(tmp_path)
    words = ["voc", "--root", str(tmp_path), "--check"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/Set/images: 3 of 3 .jpg files",
        f"{tmp_path}/Set/masks: 1 of 1 .png files",
        f"{tmp_path}/Set: 1 of 1 .txt files",
        f"A set is whole: python analyze.py objects=voc objects.root={tmp_path}",
    ]
    (tmp_path / "Set/images/1.jpg").write_bytes(FILES["Set/images/1.jpg"][:-20])
    (tmp_path / "Set/masks/0.png").unlink()
    (tmp_path / "Set/more.txt").write_bytes(b"x")
    assert main(words) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/Set/images: 3 of 3 .jpg files, 1 of them empty or cut short: Set/images/1.jpg. Delete them and "
        "run the command again",
        f"{tmp_path}/Set/masks: 0 of 1 .png files; run the command without --check to get the others",
        f"{tmp_path}/Set: 2 of 1 .txt files; there are files that do not belong to it",
    ]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_cut_anywhere_is_not_whole(tmp_path: Path, kind: str) -> None:
    path, data = tmp_path / f"x.{'jpg' if kind == 'JPEG' else 'png'}", picture(kind)
    path.write_bytes(data)
    assert whole(path)
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        assert not whole(path)


def test_the_printed_commands_get_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voc", "--root", str(tmp_path / "my data"), "--print"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == f"mkdir -p '{tmp_path}/my data'"
    assert "6cd6e144f989b92b3379bac3b3de84fd" in printed
    assert subprocess.run(["bash", "-n", "-c", printed], check=False).returncode == 0


@needs_curl
@pytest.mark.skipif(shutil.which("md5sum") is None, reason="md5sum is not installed")
@pytest.mark.parametrize("served", ["tar"], indirect=True)
def test_the_printed_commands_run(served: Archive, tmp_path: Path) -> None:
    script = "\n".join(commands(served, tmp_path / "x"))
    done = subprocess.run(["bash", "-euc", script], check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert check(served, tmp_path / "x") == []


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["voc", "--root", "x", "--parts", "test"])
    assert "has no part test; it has trainval" in capsys.readouterr().err


def test_the_folders_are_those_that_the_loaders_look_for() -> None:
    folders = {
        name: {each.folder for part in each_set.parts.values() for each in part.contents}
        for name, each_set in DATA_SETS.items()
    }
    assert "VOCdevkit/VOC2012/SegmentationObject" in folders["voc"]
    assert {"annotations", "val2017", "train2017"} == folders["coco"]
    assert "DAVIS/JPEGImages/480p" in folders["davis"]

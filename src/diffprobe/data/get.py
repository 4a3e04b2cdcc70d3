"""Gets Pascal VOC 2012, COCO 2017 or DAVIS 2017, or checks a copy: python -m diffprobe.data.get voc --root FOLDER

Archives are downloaded by curl, which resumes, compared with their published checksums and unpacked; what is there is
neither downloaded nor unpacked again. Then the folder is checked: how many files there are of each kind, and which are
cut short. `--check` does this alone, `--print` prints the commands instead of running them.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from diffprobe.errors import UserError
from diffprobe.files import remove_leftovers, replacing
from diffprobe.ranges import typed_path
from diffprobe.signals import run_command
from diffprobe.terminal import module_command, script_command

SHOWN = 5  # names of faulty files
CHUNK = 2**20
GIGABYTE = 10**9
# How whole files end: JPEG (ITU-T T.81, B.1.1.3), PNG (the IEND chunk with its CRC)
ENDS = {".jpg": b"\xff\xd9", ".png": b"IEND\xae\x42\x60\x82"}
STARTS = {".jpg": b"\xff\xd8", ".png": b"\x89PNG\r\n\x1a\n"}
TAIL = 4096  # some JPEG files have bytes behind their end


@dataclass(frozen=True)
class Contents:
    """Files that a data set has: so many below `folder` with this ending."""

    folder: str
    ending: str
    count: int


@dataclass(frozen=True)
class Archive:
    """A file to download, and what is in it.

    Attributes:
        md5: as published; None where none is, then the checksums inside a zip file tell.
        size: bytes; None if not published.
        gigabytes: of what it unpacks to.
    """

    name: str
    url: str
    md5: str | None
    size: int | None
    gigabytes: float
    contents: tuple[Contents, ...]


@dataclass(frozen=True)
class DataSet:
    """Archives by the name of a part; `usual` parts are taken where none are named. `objects` is its configuration."""

    title: str
    objects: str
    parts: dict[str, Archive]
    usual: tuple[str, ...]


def _coco(name: str, md5: str, size: int, gigabytes: float, *contents: Contents) -> Archive:
    kind = "annotations" if name.startswith("annotations") else "zips"
    url = f"http://images.cocodataset.org/{kind}/{name}"
    return Archive(name, url, md5, size, gigabytes, contents)


# Checksums: of VOC those of torchvision's datasets/voc.py, of COCO those of PaddleDetection's ppdet/utils/download.py.
# Numbers of files: of the sets' own pages.
DATA_SETS = {
    "voc": DataSet(
        "Pascal VOC 2012",
        "voc",
        {
            "trainval": Archive(
                "VOCtrainval_11-May-2012.tar",
                "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                "6cd6e144f989b92b3379bac3b3de84fd",
                1_999_639_040,
                2.0,
                (
                    Contents("VOCdevkit/VOC2012/JPEGImages", ".jpg", 17_125),
                    Contents("VOCdevkit/VOC2012/SegmentationObject", ".png", 2_913),
                    Contents("VOCdevkit/VOC2012/SegmentationClass", ".png", 2_913),
                    Contents("VOCdevkit/VOC2012/ImageSets/Segmentation", ".txt", 3),
                ),
            )
        },
        ("trainval",),
    ),
    "coco": DataSet(
        "COCO 2017",
        "coco",
        {
            "annotations": _coco(
                *("annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c", 252_907_541, 0.8),
                Contents("annotations", ".json", 6),
            ),
            "val": _coco(
                *("val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330, 0.8),
                Contents("val2017", ".jpg", 5_000),
            ),
            "train": _coco(
                *("train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798, 19.4),
                Contents("train2017", ".jpg", 118_287),
            ),
        },
        ("annotations", "val"),
    ),
    "davis": DataSet(
        "DAVIS 2017, 480p",
        "davis",
        {
            "trainval": Archive(
                "DAVIS-2017-trainval-480p.zip",
                "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
                None,
                None,
                0.9,
                (
                    Contents("DAVIS/JPEGImages/480p", ".jpg", 6_208),
                    Contents("DAVIS/Annotations/480p", ".png", 6_208),
                    Contents("DAVIS/ImageSets/2017", ".txt", 2),
                ),
            )
        },
        ("trainval",),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 for what could not be got, or is not whole."""
    parser = argparse.ArgumentParser(
        prog=module_command("diffprobe.data.get"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=DATA_SETS)
    parser.add_argument("--root", type=typed_path, required=True, help="folder of the data set")
    parser.add_argument("--parts", nargs="+", help="of coco: annotations, val, train (without this the first two)")
    parser.add_argument("--check", action="store_true", help="check what is there, and download nothing")
    parser.add_argument("--print", action="store_true", help="print the commands, and run nothing")
    parser.add_argument("--keep", action="store_true", help="keep the archives after they are unpacked")
    options = parser.parse_args(arguments)
    data_set = DATA_SETS[options.name]
    parts = options.parts or data_set.usual
    unknown = [part for part in parts if part not in data_set.parts]
    if unknown:
        parser.error(f"{data_set.title} has no part {unknown[0]}; it has {', '.join(data_set.parts)}")
    archives = [data_set.parts[part] for part in parts]
    try:
        if options.print:
            print("\n".join(line for archive in archives for line in commands(archive, options.root)))
            return 0
        if not options.check:
            for archive in archives:
                get(archive, options.root, keep=options.keep)
        faults = [fault for archive in archives for fault in check(archive, options.root)]
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if not faults:
        analyze = " ".join(script_command("analyze"))
        print(f"{data_set.title} is whole: {analyze} objects={data_set.objects} objects.root={options.root}")
    return 1 if faults else 0


def commands(archive: Archive, root: Path) -> list[str]:
    """What a shell would run to get the archive and unpack it."""
    path = root / archive.name
    unpack = ["tar", "xf", path, "-C", root] if path.suffix == ".tar" else ["unzip", "-n", "-q", path, "-d", root]
    lines = [["mkdir", "-p", root], _download_command(archive, path), unpack]
    if archive.md5 is not None:
        lines.insert(2, ["md5sum", "-c", "-"])
    found = [shlex.join(map(str, line)) for line in lines]
    return [f"echo '{archive.md5}  {path}' | {line}" if line.startswith("md5sum") else line for line in found]


def get(archive: Archive, root: Path, *, keep: bool = False) -> None:
    """Downloads and unpacks an archive, unless all of its files are there already.

    Raises:
        UserError: there is no curl, no network or no space, or the file that came is another than published.
    """
    if not missing(archive, root):
        return
    path = root / archive.name
    try:
        root.mkdir(parents=True, exist_ok=True)
        _check_space(archive, path)
        _download(archive, path)
        _unpack(path, root)
    except OSError as error:
        raise UserError(f"cannot write {archive.name} into {root}: {error.strerror}; what is there is kept") from error
    if not keep:
        path.unlink()


def _check_space(archive: Archive, path: Path) -> None:
    there = path.stat().st_size if path.exists() else 0
    needed = (archive.size or 0) - there + archive.gigabytes * GIGABYTE
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise UserError(
            f"{archive.name} and what is in it take {needed / GIGABYTE:.1f} GB more, and {path.parent} has "
            f"{free / GIGABYTE:.1f} GB free; give another --root"
        )


def _download_command(archive: Archive, path: Path) -> list[str]:
    options = ["--fail", "--location", "--retry", "5", "--continue-at", "-"]
    return ["curl", *options, "--output", str(path), archive.url]


def _download(archive: Archive, path: Path) -> None:
    """Downloads what is missing of the archive, and compares it with its checksum."""
    if not _arrived(archive, path):
        if shutil.which("curl") is None:
            raise UserError(f"there is no curl to download {archive.url} with; install it, or save the file as {path}")
        print(f"downloading {archive.url}", flush=True)
        code = subprocess.run(_download_command(archive, path), check=False).returncode
        if code:
            raise UserError(
                f"curl could not get {archive.url} (its exit code is {code}); what has come is kept in {path}, and the "
                "same command goes on there"
            )
    found = None if archive.md5 is None else _md5(path)
    if found != archive.md5 or not (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
        wanted = f", its MD5 is {found} in place of {archive.md5}" if archive.md5 is not None else ""
        raise UserError(f"{path} is not the file that was published{wanted}; delete it and run the command again")


def _arrived(archive: Archive, path: Path) -> bool:
    """Whether the whole archive is there; without a published size, whether it is a whole zip file."""
    if not path.exists():
        return False
    return path.stat().st_size == archive.size if archive.size is not None else zipfile.is_zipfile(path)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _unpack(path: Path, root: Path) -> None:
    """Writes the files of an archive that are not there; each whole or not at all."""
    print(f"unpacking {path}", flush=True)
    with _opened(path) as members:
        for name, size, content in members:
            parts = PurePosixPath(name).parts
            if ".." in parts or PurePosixPath(name).is_absolute():
                raise UserError(f"{path} has a file {name!r} that would lie outside of {root}")
            target = root.joinpath(*parts)
            if target.exists() and target.stat().st_size == size:
                continue
            remove_leftovers(target.parent)
            try:
                with replacing(target) as temporary, temporary.open("wb") as file:
                    shutil.copyfileobj(content, file, CHUNK)
            except (zipfile.BadZipFile, EOFError) as error:
                raise UserError(
                    f"{path} is damaged at {name} ({error}); delete it and run the command again"
                ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """Name, size and content of every file in an archive."""
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            files = ((member, archive.extractfile(member)) for member in archive if member.isfile())
            yield ((member.name, member.size, content) for member, content in files if content is not None)
        return
    with zipfile.ZipFile(path) as archive:
        yield (
            (entry.filename, entry.file_size, archive.open(entry)) for entry in archive.infolist() if not entry.is_dir()
        )


def missing(archive: Archive, root: Path) -> dict[str, int]:
    """How many files are missing, by folder."""
    counts = {contents.folder: contents.count - len(_files(contents, root)) for contents in archive.contents}
    return {folder: count for folder, count in counts.items() if count > 0}


def _files(contents: Contents, root: Path) -> list[Path]:
    hidden = (path for path in (root / contents.folder).rglob(f"*{contents.ending}"))
    return sorted(path for path in hidden if not path.name.startswith("."))


def check(archive: Archive, root: Path) -> list[str]:
    """Prints how many files of each kind there are. Returns what is wrong, a line each, printed too."""
    faults = []
    for contents in archive.contents:
        files = _files(contents, root)
        broken = [path for path in files if not whole(path)]
        line = f"{root / contents.folder}: {len(files)} of {contents.count} {contents.ending} files"
        if len(files) == contents.count and not broken:
            print(line)
            continue
        if broken:
            named = ", ".join(str(path.relative_to(root)) for path in broken[:SHOWN])
            more = f" and {len(broken) - SHOWN} others" if len(broken) > SHOWN else ""
            line += f", {len(broken)} of them empty or cut short: {named}{more}. Delete them and run the command again"
        elif len(files) < contents.count:
            line += "; run the command without --check to get the others"
        else:
            line += "; there are files that do not belong to it"
        print(line)
        faults.append(line)
    return faults


def whole(path: Path) -> bool:
    """Whether a file is not empty, and a JPEG or PNG has its beginning and its end."""
    size = path.stat().st_size
    if path.suffix not in ENDS:
        return size > 0
    with path.open("rb") as file:
        start = file.read(len(STARTS[path.suffix]))
        file.seek(max(0, size - TAIL))
        return start == STARTS[path.suffix] and ENDS[path.suffix] in file.read()


if __name__ == "__main__":
    sys.exit(run_command(main))

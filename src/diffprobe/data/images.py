"""Real images: found in a folder or a list, read whatever their mode, and fitted to a square.

What a source of real images asks of them: names, captions, pixels, and what determines the pixels.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffprobe.data.decoding import DecodedFile, inspect_image_file, open_upright
from diffprobe.data.prompts import Log, read_lines, read_table, warn
from diffprobe.errors import UserError
from diffprobe.fitting import FITS, Geometry, visible_box
from diffprobe.ranges import Choice, Count, Folder, Fractions, expanded
from diffprobe.threads import decoding_threads

# A file of a folder with one of these is an image, and an error if it cannot be read; others are left alone.
IMAGE_EXTENSIONS = frozenset(
    {
        *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    }
)
COLUMNS = ("path", "src")  # of a CSV list; the second is the Diff-Props authors' name
ON_ERROR = ("error", "skip")
# Folders of copies and thumbnails that systems put beside images; so are all whose name begins with a dot.
HIDDEN = ("__MACOSX", "@eaDir")


@dataclass(frozen=True)
class ImageData:
    """Real images of a folder or list, see `load_images`.

    Attributes:
        root: what relative paths start from.
        count: None takes all of them.
        fractions: of the images, to train, select and test on.
    """

    images: Folder
    root: Folder | None = None
    fit: Annotated[str, Choice(*FITS)] = "stretch"
    on_error: Annotated[str, Choice(*ON_ERROR)] = "error"
    count: Count | None = None
    fractions: Fractions = field(default_factory=lambda: [0.6, 0.2, 0.2])


@dataclass(frozen=True)
class ImageFile:
    """One image to be read: its name, which activations and labels carry, its file, and a caption where there is one.

    The name is the path below the root folder without its ending: 'cats/0001'. `contents` is what the file held when it
    was first read, which `split_readable` does; from then on other contents are an error.
    """

    name: str
    path: Path
    caption: str = ""
    contents: DecodedFile | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be read, and why."""

    name: str
    reason: str


def load_images(
    source: str | Path | Sequence[str | Path],
    *,
    root: str | Path | None = None,
    count: int | None = None,
    log: Log = warn,
) -> list[ImageFile]:
    """The images of a folder (subfolders too, sorted by name), of a list file, or of paths given one by one.

    A list file is a CSV file with a column `path` or `src` and maybe `caption`, or any other text file with one path a
    line. Its order is kept. An entry that is a folder stands for every image in it, but for hidden ones: those that lie
    below something whose name begins with a dot, or is one of `HIDDEN`. No image is opened yet.

    Args:
        root: what relative paths start from and names are below; by default the folder, the folder of the list file,
            or the current folder. Files elsewhere are named by their whole path.
        count: the first so many; None means all.
        log: takes a line for what is odd about a list file, such as its encoding, and for hidden images that are left
            out.

    Raises:
        UserError: the list cannot be read, there are no images or fewer than asked, some are missing, or two would have
            the same name.
    """
    if count is not None and count < 1:
        raise UserError(f"data.count={count}: must be at least 1")
    if isinstance(source, str | Path):
        place = Path(source)
        if not place.exists():
            raise UserError(f"there is no {place}; give a folder of images or a list of them as data.images")
        entries = [(place.absolute(), "")] if place.is_dir() or _is_image(place) else _read_list(place, log)
        base = Path(root) if root is not None else place if place.is_dir() else place.parent
    else:
        place, base = "the paths given", Path(root or ".")
        entries = [(Path(entry), "") for entry in source]
    images = _named(base.absolute(), entries, place, log)
    if count is not None and count > len(images):
        raise UserError(f"data.count={count}: {place} has only {len(images)} images; ask for fewer")
    return images[:count]


def _read_list(path: Path, log: Log) -> list[tuple[Path, str]]:
    """(path, caption) of every row of a list file."""
    called = "the list of images"
    if path.suffix.lower() != ".csv":
        return [(Path(line), "") for _, line in read_lines(path, called, log)]
    rows = read_table(path, called, [COLUMNS], ["caption"], log)
    empty = next((row.line for row in rows if not row.cells[COLUMNS[0]].strip()), None)
    if empty:
        raise UserError(f"{path}, line {empty}: the row does not have one value for each column; it names no image")
    return [(Path(row.cells[COLUMNS[0]].strip()), row.cells.get("caption", "")) for row in rows]


def _named(root: Path, entries: Sequence[tuple[Path, str]], place: Path | str, log: Log) -> list[ImageFile]:
    images: list[ImageFile] = []
    hidden: list[Path] = []
    for entry, caption in entries:
        # '..' goes, links stay: names do not depend on where links lead
        path = Path(os.path.normpath(root / expanded(str(entry))))
        found = _in_folder(path) if path.is_dir() else [path]
        hidden += [file for file in found if _is_hidden(file.relative_to(path))]
        images += [
            ImageFile(_name(file, root), file, caption) for file in found if not _is_hidden(file.relative_to(path))
        ]
    if hidden:
        log(f"left out {len(hidden)} hidden image{'s' * (len(hidden) > 1)} of {place}, such as {hidden[0]}")
    if not images:
        raise UserError(
            f"{place} has no images; files that count as images end in {' '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    missing = [image.path for image in images if not image.path.exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(images)} images of {place} are not there, such as "
            f"{', '.join(map(str, missing[:3]))}; relative paths start from {root}, which data.root can change"
        )
    paths = defaultdict(list)
    for image in images:
        paths[image.name].append(str(image.path))
    name, times = Counter(image.name for image in images).most_common(1)[0]
    if times > 1:
        raise UserError(f"{place}: {times} images would be named {name!r}: {', '.join(paths[name][:3])}; keep one")
    return images


def _in_folder(folder: Path) -> list[Path]:
    """A link to nowhere is listed too, so that it is missed."""
    return sorted(path for path in folder.rglob("*") if _is_image(path) and not path.is_dir())


def _is_hidden(below: Path) -> bool:
    return any(part.startswith(".") or part in HIDDEN for part in below.parts)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS


def without_extension(path: str) -> str:
    """'x/0001.jpg' is 'x/0001'; what is no ending of an image stays: 'tiny.2'."""
    place = PurePosixPath(path)
    return (place.with_suffix("") if place.suffix.lower() in IMAGE_EXTENSIONS else place).as_posix()


def _name(path: Path, root: Path) -> str:
    root = Path(os.path.normpath(root))
    below = path.relative_to(root if path.is_relative_to(root) else path.anchor)
    return below.with_suffix("").as_posix()


def split_readable(images: Sequence[ImageFile], on_error: str = "error") -> tuple[list[ImageFile], list[BadImage]]:
    """Decodes every image once, before any other work: those that can be used, in order, and those that cannot.

    An image that shows, pixel by pixel, the same as one before it cannot: if one of them trained probes and the other
    tested them, the score would say nothing. Those that can be used are returned with their `contents`.

    Raises:
        UserError: an image cannot be used and `on_error` is not 'skip', or none can be used at all.
    """
    if on_error not in ON_ERROR:
        raise UserError(f"data.on_error={on_error}: choose one of {', '.join(ON_ERROR)}")
    with decoding_threads() as pool:
        looked = list(pool.map(_inspect, images))
    reasons = [found if isinstance(found, str) else "" for found in looked]
    what = "cannot be read"
    first: dict[str, ImageFile] = {}  # by what it shows
    for row, (image, found) in enumerate(zip(images, looked, strict=True)):
        if isinstance(found, DecodedFile) and first.setdefault(found.pixels, image) is not image:
            reasons[row] = f"the image {image.path} shows the same picture as {first[found.pixels].path}"
            what = "cannot be read or are there twice"
    bad = [BadImage(image.name, reason) for image, reason in zip(images, reasons, strict=True) if reason]
    if bad and (on_error == "error" or len(bad) == len(images)):
        advice = "" if len(bad) == len(images) else "; data.on_error=skip leaves them out"
        shown = "; ".join(image.reason for image in bad[:3])
        raise UserError(f"{len(bad)} of {len(images)} images {what}: {shown}{advice}")
    good = [
        replace(image, contents=found)
        for image, found, reason in zip(images, looked, reasons, strict=True)
        if isinstance(found, DecodedFile) and not reason
    ]
    return good, bad


def _inspect(image: ImageFile) -> DecodedFile | str:
    """What the file holds, or why it cannot be read."""
    try:
        return inspect_image_file(image.path)
    except UserError as error:
        return str(error)


class ImageDataset(Dataset[tuple[str, Tensor]]):
    """(name, [3, size, size]) of every image, read when asked for: for the workers of a DataLoader."""

    def __init__(self, images: Sequence[ImageFile], size: int, fit: str = "stretch") -> None:
        _check_fit(size, fit)
        self.images, self.size, self.fit = list(images), size, fit

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[str, Tensor]:
        return self.images[row].name, read_image(self.images[row], self.size, self.fit)


def read_image(image: ImageFile, size: int, fit: str = "stretch") -> Tensor:
    """[3, size, size], float32 in [0, 1]; grey images have three equal channels.

    Turned as its EXIF data says; transparent pixels show white; of an animation the first frame. 16-bit grey keeps its
    precision; 16-bit colour is read at 8 bits. Embedded colour profiles (ICC) are ignored. Resized by antialiased
    Lanczos.

    Args:
        fit: 'stretch' to the square, as Diff-Props does, or 'crop' to the square in the middle first.

    Raises:
        UserError: the file cannot be read, holds pixels of unknown range (floating point, 32 bit), or is not any more
            what `image.contents` says.
    """
    from PIL import Image

    _check_fit(size, fit)
    with open_upright(image.path, image.contents) as picture:
        box = visible_box(*picture.size, fit)
        pixels = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box), np.float32)
    if pixels.ndim == 2:
        grey = torch.from_numpy(pixels.clip(0, 1))  # Lanczos overshoots at edges
        return grey.expand(3, size, size).contiguous()
    return torch.from_numpy(pixels / 255).permute(2, 0, 1).contiguous()


def _check_fit(size: int, fit: str) -> None:
    if fit not in FITS:
        raise UserError(f"data.fit={fit}: choose one of {', '.join(FITS)}")
    if size < 1:
        raise UserError(f"images of {size} pixels; the size must be at least 1")


class ImageCollection(Protocol):
    """Images by row, read when they are asked for."""

    names: list[str]
    captions: list[str]

    def picture(self, row: int, size: int) -> Tensor:
        """[3, size, size], float32 in [0, 1]."""
        ...

    def record(self, row: int) -> dict[str, Any]:
        """Its `id` and what determines its pixels, as JSON values."""
        ...

    def geometry(self, row: int) -> Geometry | None:
        """How it became a square, for maps that follow it; None where no map is made of the original."""
        ...


class ImageFileCollection:
    """Image files; `fit` is how they become a square, see `read_image`.

    What a file holds when it is first asked for is what it has to hold from then on: activations are kept under the
    hash of its bytes, so other pixels must not come in under it.
    """

    def __init__(self, files: Sequence[ImageFile], fit: str = "stretch") -> None:
        self.files, self.fit = list(files), fit
        self.names = [file.name for file in files]
        self.captions = [file.caption for file in files]

    def picture(self, row: int, size: int) -> Tensor:
        self._contents(row)
        return read_image(self.files[row], size, self.fit)

    def record(self, row: int) -> dict[str, Any]:
        file = self.files[row]
        return {"id": file.name, "caption": file.caption, "fit": self.fit, "sha256": self._contents(row).sha256}

    def geometry(self, row: int) -> Geometry:
        found = self._contents(row)
        return Geometry(found.width, found.height, found.orientation, self.fit)

    def _contents(self, row: int) -> DecodedFile:
        file = self.files[row]
        if file.contents is None:
            file = self.files[row] = replace(file, contents=inspect_image_file(file.path))
        assert file.contents is not None
        return file.contents

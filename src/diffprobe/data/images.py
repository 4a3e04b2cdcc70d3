"""Real images: found in a folder or a list, decoded whatever their mode, and fitted to a square."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffprobe.data.prompts import Log, read_lines, read_table, warn
from diffprobe.errors import UserError
from diffprobe.fitting import FITS, UPRIGHT, Geometry, visible_box
from diffprobe.ranges import Choice, Count, Folder, Fractions, checked_value, expanded
from diffprobe.threads import decoding_threads
from diffprobe.user_files import opened_picture, read_file

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Files of a folder with these endings are images, and an error if they cannot be read; others are ignored.
IMAGE_EXTENSIONS = frozenset(
    {
        *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    }
)
COLUMNS = ("path", "src")  # of a CSV list; the second is the Diff-Props authors' name
OnError = Annotated[str, Choice("error", "skip")]
Fit = Annotated[str, Choice(*FITS)]
# Folders of copies and thumbnails that systems put beside images; so are all whose name begins with a dot.
HIDDEN = ("__MACOSX", "@eaDir")
ORIENTATION = 0x0112  # the EXIF tag
BACKGROUND = (255, 255, 255)  # shows through transparent pixels
LARGEST_16_BIT = 65535
STRIP = 2**20  # pixels that are converted at once, where a whole picture would need several copies


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
    fit: Fit = "stretch"
    on_error: OnError = "error"
    count: Count | None = None
    fractions: Fractions = field(default_factory=lambda: [0.6, 0.2, 0.2])


@dataclass(frozen=True)
class DecodedFile:
    """The contents of an image file.

    Attributes:
        sha256: of its bytes.
        pixels: SHA-256 of the decoded picture, the same for two files of one picture, in whatever format.
        width, height: as stored, before EXIF orientation (1 to 8) is applied.
    """

    sha256: str
    pixels: str
    width: int
    height: int
    orientation: int


@dataclass(frozen=True)
class ImageFile:
    """An image file; its name, the path below the root folder without ending ('cats/0001'), is the image's id.

    `contents` is what the file held when it was first read (see `split_readable`); other contents are an error.
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
    """The images of a folder (subfolders too, sorted by name), of a list file, or of some paths. Opens none of them.

    A list file is a CSV file with a column `path` or `src` and maybe `caption`, or any other text file with one path a
    line. Its order is kept. An entry that is a folder stands for every image in it, except hidden ones: below something
    whose name begins with a dot, or is one of `HIDDEN`.

    Args:
        root: what relative paths start from and names are below; by default the folder, the folder of the list file,
            or the current folder. Files elsewhere are named by their whole path.
        count: the first so many; None means all.
        log: takes a line on hidden images, and for what is odd about a list file, such as its encoding.

    Raises:
        UserError: the list cannot be read, there are no images or fewer than asked, some are missing, or two would have
            the same name.
    """
    checked_value(count, Count | None, "data.count")
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
    what = "the list of images"
    if path.suffix.lower() != ".csv":
        return [(Path(line), "") for _, line in read_lines(path, what, log)]
    rows = read_table(path, what, [COLUMNS], ["caption"], log)
    empty = next((row.line for row in rows if not row.cells[COLUMNS[0]].strip()), None)
    if empty:
        raise UserError(f"{path}, line {empty}: the row does not have one value for each column; it names no image")
    return [(Path(row.cells[COLUMNS[0]].strip()), row.cells.get("caption", "")) for row in rows]


def _named(root: Path, entries: Sequence[tuple[Path, str]], place: Path | str, log: Log) -> list[ImageFile]:
    root = Path(os.path.normpath(root))  # links are not followed: they do not change names
    images: list[ImageFile] = []
    hidden: list[Path] = []
    for entry, caption in entries:
        path = Path(os.path.normpath(root / expanded(str(entry))))
        # A link to nowhere is listed too, so that it is reported as missing
        inside = sorted(file for file in path.rglob("*") if _is_image(file) and not file.is_dir())
        for file in inside if path.is_dir() else [path]:
            if any(part.startswith(".") or part in HIDDEN for part in file.relative_to(path).parts):
                hidden.append(file)
            else:
                below = file.relative_to(root if file.is_relative_to(root) else file.anchor)
                images.append(ImageFile(below.with_suffix("").as_posix(), file, caption))
    if hidden:
        log(f"left out {len(hidden)} hidden image{'s' * (len(hidden) > 1)} of {place}, such as {hidden[0]}")
    if not images:
        raise UserError(
            f"{place} has no images; files that count as images end in {' '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    missing = [str(image.path) for image in images if not image.path.exists()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(images)} images of {place} are not there, such as "
            f"{', '.join(missing[:3])}; relative paths start from {root}, which data.root can change"
        )
    paths = defaultdict(list)
    for image in images:
        paths[image.name].append(str(image.path))
    name, same = max(paths.items(), key=lambda item: len(item[1]))
    if len(same) > 1:
        raise UserError(f"{place}: {len(same)} images would be named {name!r}: {', '.join(same[:3])}; keep one")
    return images


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS


def split_readable(images: Sequence[ImageFile], on_error: str = "error") -> tuple[list[ImageFile], list[BadImage]]:
    """Decodes every image once, before any other work: those that can be used, with their `contents`, and the others.

    An image with the same pixels as an earlier one cannot be used: if one trained probes and the other tested them,
    the score would mean nothing.

    Raises:
        UserError: an image cannot be used and `on_error` is not 'skip', or none can be used at all.
    """
    checked_value(on_error, OnError, "data.on_error")

    def inspect(image: ImageFile) -> DecodedFile | str:
        try:
            return inspect_image_file(image.path)
        except UserError as error:
            return str(error)

    with decoding_threads() as pool:
        inspected = list(pool.map(inspect, images))
    good: list[ImageFile] = []
    bad: list[BadImage] = []
    what = "cannot be read"
    first: dict[str, ImageFile] = {}  # of each picture
    for image, found in zip(images, inspected, strict=True):
        if isinstance(found, str):
            bad.append(BadImage(image.name, found))
        elif first.setdefault(found.pixels, image) is not image:
            same = first[found.pixels].path
            bad.append(BadImage(image.name, f"the image {image.path} shows the same picture as {same}"))
            what = "cannot be read or are there twice"
        else:
            good.append(replace(image, contents=found))
    if bad and (on_error == "error" or not good):
        advice = "; data.on_error=skip leaves them out" if good else ""
        shown = "; ".join(image.reason for image in bad[:3])
        raise UserError(f"{len(bad)} of {len(images)} images {what}: {shown}{advice}")
    return good, bad


class ImageDataset(Dataset[tuple[str, Tensor]]):
    """(name, [3, size, size]) of every image, read when it is indexed: for the workers of a DataLoader."""

    def __init__(self, images: Sequence[ImageFile], size: int, fit: str = "stretch") -> None:
        _check_fit(size, fit)
        self.images, self.size, self.fit = list(images), size, fit

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[str, Tensor]:
        return self.images[row].name, read_image(self.images[row], self.size, self.fit)


def read_image(image: ImageFile, size: int, fit: str = "stretch") -> Tensor:
    """[3, size, size], float32 in [0, 1], by antialiased Lanczos; grey images have three equal channels.

    EXIF orientation is applied, transparent pixels show white, of an animation the first frame is read. 16-bit grey
    keeps its precision, 16-bit colour is read at 8 bits. Embedded colour profiles (ICC) are ignored.

    Args:
        fit: 'stretch' to the square, as Diff-Props does, or 'crop' to the square in the middle first.

    Raises:
        UserError: the file cannot be read, holds pixels of unknown range (floating point, 32 bit), or differs from
            `image.contents`.
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
    checked_value(fit, Fit, "data.fit")
    if size < 1:
        raise UserError(f"images of {size} pixels; the size must be at least 1")


@contextmanager
def open_upright(path: Path, contents: DecodedFile | None = None) -> Iterator[Picture]:
    """The picture upright, in mode RGB or (16-bit grey) F; of an animation the first.

    Raises:
        UserError: the file cannot be read, holds pixels of unknown range, or differs from `contents`.
    """
    content = read_file(path, "the image")
    if contents is not None and hashlib.sha256(content).hexdigest() != contents.sha256:
        raise UserError(
            f"the image {path} was changed while it was in use: its contents are not those that this run began with; "
            "run it again"
        )
    with opened_picture(path, "the image", content=content) as (picture, _):
        _turn_upright(picture)
        yield _without_mode(picture)


def inspect_image_file(path: Path) -> DecodedFile:
    """Decodes all of an image file. Raises UserError as `open_upright`."""
    content = read_file(path, "the image")
    with opened_picture(path, "the image", content=content) as (picture, stored):
        orientation = _turn_upright(picture)
        shown = _without_mode(picture)
        pixels = hashlib.sha256(repr((shown.mode, shown.size)).encode())
        for _, strip in _strips(shown):
            pixels.update(strip.tobytes())
    return DecodedFile(hashlib.sha256(content).hexdigest(), pixels.hexdigest(), *stored, orientation)


def _turn_upright(picture: Picture) -> int:
    """Applies the EXIF orientation, in place, and returns it; 1 where there is none or nonsense."""
    from PIL import ImageOps

    picture.load()  # EXIF data may come behind the pixels
    found = picture.getexif().get(ORIENTATION, UPRIGHT)
    orientation = int(found) if found in range(1, 9) else UPRIGHT
    if orientation != UPRIGHT:
        ImageOps.exif_transpose(picture, in_place=True)
    return orientation


def _without_mode(picture: Picture) -> Picture:
    """In mode RGB, transparent pixels over white; 16-bit grey in mode F with values in [0, 1]."""
    from PIL import Image

    if picture.mode.startswith("I"):
        low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]
        if low < 0 or high > LARGEST_16_BIT:
            raise ValueError("its grey values go beyond 16 bits, their range is unknown; save it as 8 or 16 bits")
        shares = (np.arange(LARGEST_16_BIT + 1) / LARGEST_16_BIT).astype(np.float32)
        clear = picture.info.get("transparency")
        if isinstance(clear, int) and 0 <= clear <= LARGEST_16_BIT:
            shares[clear] = 1
        return Image.fromarray(shares[np.asarray(picture)])
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, their range is unknown; save it as 8 or 16 bits")
    if picture.has_transparency_data:
        canvas = Image.new("RGB", picture.size)
        for top, strip in _strips(picture):
            white = Image.new("RGBA", strip.size, (*BACKGROUND, 255))
            white.alpha_composite(strip.convert("RGBA"))
            canvas.paste(white.convert("RGB"), (0, top))
        return canvas
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _strips(picture: Picture) -> Iterator[tuple[int, Picture]]:
    """(top row, strip) from the top to the bottom of a picture."""
    width, height = picture.size
    rows = max(1, STRIP // max(1, width))
    for top in range(0, height, rows):
        yield top, picture.crop((0, top, width, min(top + rows, height)))


class ImageCollection(ABC):
    """Images by row, read when they are used. Holds no pixels, so it is cheap to hand to another process."""

    names: list[str]
    captions: list[str]

    @abstractmethod
    def picture(self, row: int, size: int) -> Tensor:
        """[3, size, size], float32 in [0, 1]."""

    @abstractmethod
    def record(self, row: int) -> dict[str, Any]:
        """Its `id` and what determines its pixels (and masks), as JSON values."""

    def geometry(self, row: int) -> Geometry | None:
        """How it became a square, for maps of the original; None where there are none."""
        return None


class ImageFileCollection(ImageCollection):
    """Image files; `fit` is how they become a square, see `read_image`.

    Activations are stored under the hash of a file's bytes, so its contents may not change after its first reading.
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

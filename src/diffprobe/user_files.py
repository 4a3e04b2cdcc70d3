"""Opens files that the user gives: regular files of bounded size, and pictures of some formats only.

All pictures, maps, masks and lists of the user are opened here. So a pipe or a device is refused instead of waited for,
Pillow starts no other program (PostScript would go to Ghostscript, whatever the file's name), and the pictures that
threads decode at once fit into memory.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from threading import Condition
from typing import TYPE_CHECKING

import numpy as np

from diffprobe.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Pillow's names of the formats that are read; HEIF where a plug-in for it is loaded.
KINDS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "HEIF")
TGA = "TGA"  # files have no signature, and many a broken file looks like one: read only where the name says so
LARGEST_FILE = 512 * 2**20  # bytes
LARGEST_PICTURE = 120_000_000  # pixels that are decoded at once, in one picture or in several; about 1 GB
_JPEG = b"\xff\xd8\xff"
_OTHERS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_file(path: str | Path, what: str = "the file") -> bytes:
    """All bytes of a regular file.

    Args:
        what: its name in errors, such as 'the image'.

    Raises:
        UserError: there is none, it is a folder, pipe, socket or device, it is larger than `LARGEST_FILE`, or it cannot
            be read.
    """
    try:
        _check_regular(os.stat(path).st_mode, path, what)  # opening a pipe would wait, and a device might do something
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            _check_regular(os.fstat(file.fileno()).st_mode, path, what)
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise UserError(f"cannot read {what} {path}: {_reason(error)}") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"cannot read {what} {path}: it is larger than {LARGEST_FILE // 2**20} MiB")
    return content


@contextmanager
def opened_picture(
    path: str | Path, what: str = "the image", *, content: bytes | None = None, kinds: Sequence[str] = KINDS
) -> Iterator[tuple[ImageFile, tuple[int, int]]]:
    """A picture whose header is read, and its stored (width, height); decode its pixels inside the `with`.

    Waits until other threads have decoded theirs, where all together would not fit. Any error inside the `with` becomes
    a UserError with the file's name. A JPEG file of more than `LARGEST_PICTURE` pixels is decoded at 1/2, 1/4 or 1/8 of
    its sides, as needed.

    Args:
        content: the bytes of the file, where they are read already.
        kinds: Pillow's formats to try. The ending of the name does not count.

    Raises:
        UserError: it cannot be read, is of another kind or has too many pixels.
    """
    content = read_file(path, what) if content is None else content
    kinds = (*kinds, TGA) if kinds == KINDS and Path(path).suffix.lower() == ".tga" else kinds
    try:
        with _opened(content, kinds) as picture:
            stored = picture.size
            _shrink(picture)
            with _room.taken(_pixels(picture)):
                yield picture, stored
    except UserError:
        raise
    except Exception as error:  # whatever a broken file makes the many decoders raise
        raise UserError(f"cannot read {what} {path}: {_reason(error)}") from error


def read_array(path: str | Path, what: str = "the array") -> np.ndarray:
    """The one array of numbers in an .npy file.

    Raises:
        UserError: it cannot be read, or holds Python objects, several arrays or anything but numbers.
    """
    content = read_file(path, what)
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # zipfile's and tokenize's own kinds too, and MemoryError for a false shape
        raise UserError(f"cannot read {what} {path}: {_reason(error)}") from error
    if not isinstance(values, np.ndarray):
        raise UserError(f"cannot read {what} {path}: it holds several arrays (.npz); save one with numpy.save")
    if values.dtype.kind not in "buif":
        raise UserError(f"cannot read {what} {path}: its values are of type {values.dtype}, not real numbers")
    return values


def read_tensor(path: str | Path, what: str = "the tensor") -> np.ndarray:
    """The one tensor of numbers in a .safetensors file.

    Raises:
        UserError: it cannot be read, holds none or several, one of bfloat16, which numpy lacks, or one that
            is not of real numbers.
    """
    from safetensors.numpy import load

    content = read_file(path, what)
    try:
        tensors = load(content)
    except KeyError as error:
        raise UserError(f"cannot read {what} {path}: its values are of type {error}; save them as float32") from error
    except Exception as error:  # of Rust
        raise UserError(f"cannot read {what} {path}: {_reason(error)}") from error
    if len(tensors) != 1:
        raise UserError(f"cannot read {what} {path}: it holds {len(tensors)} tensors, not one")
    (values,) = tensors.values()
    if values.dtype.kind not in "buif":
        raise UserError(f"cannot read {what} {path}: its values are of type {values.dtype}, not real numbers")
    return values


def _check_regular(mode: int, path: str | Path, what: str) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _OTHERS if test(mode)), "something else")
        raise UserError(f"cannot read {what} {path}: it is {kind}, not a regular file")


def _opened(content: bytes, kinds: Sequence[str]) -> ImageFile:
    from PIL import Image, JpegImagePlugin, UnidentifiedImageError

    if not content:
        raise ValueError("it is empty")
    if not any(found[2] is Image.DecompressionBombWarning for found in warnings.filters):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit says it better
    if content.startswith(_JPEG) and "JPEG" in kinds:
        # What Image.open would call, but for its limit: a large JPEG file is not decoded at its full size
        return JpegImagePlugin.jpeg_factory(io.BytesIO(content))
    Image.init()
    try:
        return Image.open(io.BytesIO(content), formats=[kind for kind in kinds if kind in Image.OPEN])
    except UnidentifiedImageError:
        raise ValueError(f"it is not a picture of a kind that is read here ({', '.join(kinds)})") from None
    except Image.DecompressionBombError:
        raise ValueError(f"it has more pixels than are read ({LARGEST_PICTURE:,}); make it smaller") from None


def _shrink(picture: ImageFile) -> None:
    """Makes the decoder of a large JPEG file give fewer pixels. Raises ValueError if there are still too many."""
    width, height = picture.size
    # A progressive file is held whole by its decoder, however little comes out
    can_shrink = picture.format in ("JPEG", "MPO") and not picture.info.get("progressive")
    if can_shrink and width * height > LARGEST_PICTURE:
        parts = next((parts for parts in (2, 4) if ceil(width / parts) * ceil(height / parts) <= LARGEST_PICTURE), 8)
        picture.draft(None, (max(1, width // parts), max(1, height // parts)))
    if _pixels(picture) > LARGEST_PICTURE:
        raise ValueError(f"it is {width} x {height} pixels, more than are read ({LARGEST_PICTURE:,}); make it smaller")


def _pixels(picture: ImageFile) -> int:
    return picture.size[0] * picture.size[1]


class _PixelBudget:
    """Lets threads decode at once as many pixels as `LARGEST_PICTURE`. A thread takes room for one picture at a time:
    for a second one it might wait for itself."""

    def __init__(self) -> None:
        self._taken, self._changed = 0, Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= LARGEST_PICTURE)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_room = _PixelBudget()


def _reason(error: BaseException) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)

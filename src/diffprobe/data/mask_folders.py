"""Pascal VOC 2012 and DAVIS 2017: folders of images and of masks whose pixels hold numbers of objects or classes.

A number is a place in a palette, but editors and converters re-order palettes. So a palette is believed only where each
number has its colour of VOC's colour map (DAVIS uses it too), or its own grey. If the colours are in another order,
they determine the numbers, as they do in RGB masks. A palette with one colour for several numbers in use (black, where
a program filled it up) was not re-ordered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from diffprobe.data.images import OnError
from diffprobe.data.object_selection import AreaShare, Selected, check_settings, read_list, select_objects
from diffprobe.data.objects import Annotation, ImageFiles, Instance, digest, find_set
from diffprobe.data.prompts import Log, read_names, warn
from diffprobe.errors import UserError
from diffprobe.ranges import Count, Folder, Text
from diffprobe.user_files import opened_picture

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# In the order of their numbers in SegmentationClass, from 1.
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
IGNORED = 255  # the border that belongs to no object
OPAQUE = 255
# [256, 3] uint8, the colours of the numbers, as in VOC's development kit (VOClabelcolormap.m): bit 0 of a number is the
# highest bit of red, bit 1 of green, bit 2 of blue, bit 3 the next of red, and so on
NUMBERS = np.arange(256)
COLOURS = np.stack(
    [sum(((NUMBERS >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)], 1
).astype(np.uint8)
GREYS = np.repeat(NUMBERS.astype(np.uint8)[:, None], 3, 1)
# The colours of objects, classes and borders in a mask that Pillow, OpenCV and others turned grey (ITU-R 601)
LUMA = np.round(COLOURS[[*range(1, 21), IGNORED]] @ np.array([0.299, 0.587, 0.114])).astype(int)
WANTED = "save it with VOC's palette, or as 8-bit grey values that are the numbers themselves"


def read_numbers(path: Path) -> np.ndarray:
    """[height, width] uint8, the number of each pixel.

    Raises:
        UserError: the file is missing, broken, or of another kind, or its colours are not those of numbers.
    """
    if not path.exists():
        raise UserError(f"there is no mask {path}")
    with opened_picture(path, "the mask") as (opened, _):
        opened.load()
        picture: Picture = opened
        if picture.mode == "L":
            return np.asarray(picture)
        if picture.mode == "P":
            return _by_palette(picture, path)
        if picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (OPAQUE, OPAQUE):
            picture = picture.convert("RGB")
        if picture.mode == "RGB":
            pixels = _packed(np.asarray(picture))
            colours, places = np.unique(pixels, return_inverse=True)
            return _numbers_of(colours, path, "pixels are colours, and it")[places.reshape(pixels.shape)]
        raise UserError(f"the mask {path} has pixels of kind {picture.mode}; {WANTED}")


def _by_palette(picture: Picture, path: Path) -> np.ndarray:
    places = np.asarray(picture)
    palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.unique(places)
    if used[-1] >= len(palette):
        raise UserError(f"the mask {path} has pixels of the number {used[-1]}, which its palette lacks; {WANTED}")
    found = palette[used]
    as_in_map = ((found == COLOURS[used]) | (found == GREYS[used])).all()
    # Programs that re-order a palette merge equal colours
    if as_in_map or len(np.unique(found, axis=0)) < len(used):
        return places
    table = np.zeros(256, np.uint8)
    table[used] = _numbers_of(_packed(found), path, "palette is not VOC's: it")
    return table[places]


def _packed(colours: np.ndarray) -> np.ndarray:
    """[..., 3] uint8 -> [...], one integer a colour."""
    return colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _numbers_of(colours: np.ndarray, path: Path, what: str) -> np.ndarray:
    """[colours] of `_packed` -> [colours] uint8, their numbers by VOC's colour map."""
    known = _packed(COLOURS)
    order = np.argsort(known)
    numbers = order[np.searchsorted(known, colours, sorter=order).clip(max=255)]
    unknown = colours[known[numbers] != colours]
    if len(unknown):
        shown = tuple(int(unknown[0]).to_bytes(3, "big"))
        raise UserError(f"the mask {path}: its {what} has the colour {shown}, which VOC's colour map lacks; {WANTED}")
    return numbers.astype(np.uint8)


def check_not_luma(objects: np.ndarray, classes: np.ndarray) -> None:
    """Raises UserError if all values of an image's two masks, [height, width] each, are VOC's colours turned grey.

    It takes both: a class mask of 15 alone may be of persons, or of boats that were turned grey; but the first object
    is number 1, and 1 is not the brightness of any of VOC's colours.
    """
    values = np.unique([*np.unique(objects), *np.unique(classes)])
    values = values[values > 0]
    if len(values) and np.isin(values, LUMA).all():
        raise UserError(
            f"its masks have the grey values {', '.join(map(str, values[:5]))}, the brightness of VOC's colours and "
            f"not the numbers they stand for; {WANTED}"
        )


def check_not_ignored(objects: np.ndarray) -> None:
    """Raises UserError if a mask of objects, [height, width], holds nothing but 0 and 255."""
    if (objects == IGNORED).any() and np.isin(objects, (0, IGNORED)).all():
        raise UserError(
            "its mask has only the values 0 and 255, and 255 is ignored: it belongs to no object; number the objects "
            "from 1 (DAVIS 2016 writes one object as 255, DAVIS 2017 numbers them)"
        )


VOC_LAYOUT = """\
  VOCdevkit/VOC2012/
    JPEGImages/2007_000032.jpg ...
    SegmentationObject/2007_000032.png ...
    SegmentationClass/2007_000032.png ...
    ImageSets/Segmentation/{train,val,trainval}.txt"""
VOC_SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar)"


class VocImages(ImageFiles):
    """Images of VOC 2012. Pixels of value 255 belong to no object."""

    kind = "voc"

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        super().__init__(names)
        self.root = root

    def file(self, row: int) -> Path:
        return self.root / "JPEGImages" / f"{self.names[row]}.jpg"

    def read(self, row: int) -> Annotation:
        numbers, classes = (read_numbers(path) for path in self._masks(row))
        if numbers.shape != classes.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (numbers.shape, classes.shape)]
            raise UserError(f"its mask of objects is {sizes[0]} pixels, its mask of classes {sizes[1]}")
        check_not_luma(numbers, classes)
        check_not_ignored(numbers)
        reading = Annotation()
        for number in np.unique(numbers):
            if number in (0, IGNORED):
                continue
            mask = numbers == number
            found = [int(value) for value in np.unique(classes[mask]) if value != IGNORED]
            if len(found) == 1 and 1 <= found[0] <= len(CLASSES):
                reading.instances.append(Instance(int(number), CLASSES[found[0] - 1], mask))
            else:
                there = f"the class{'es' * (len(found) > 1)} {', '.join(map(str, found))}" if found else "no class"
                reading.faults.append((int(number), f"its pixels have {there}; one of 1 to 20 is wanted"))
        return reading

    def annotation_digest(self, row: int) -> str:
        return digest(*(path.read_bytes() for path in self._masks(row)))

    def _masks(self, row: int) -> list[Path]:
        name = f"{self.names[row]}.png"
        return [self.root / "SegmentationObject" / name, self.root / "SegmentationClass" / name]


def load_voc(
    root: Folder | None = None,
    split: Annotated[str, Text()] = "trainval",
    list: Folder | None = None,
    count: Count | None = None,
    largest_over: AreaShare = 0.01,
    *,
    min_area: AreaShare = 0.0,
    on_error: OnError = "error",
    seed: int = 0,
    log: Log = warn,
) -> Selected:
    """Images of Pascal VOC 2012, drawn with `seed` or from a list.

    Args:
        root: VOCdevkit, the folder VOC2012 in it, or the folder that holds it.
        split: a file of ImageSets/Segmentation; without effect on a list.
        list: of images to use instead, see `read_list`.
        count: images; None means all.
        largest_over: without effect on a list; as `min_area`, `on_error` and `log` see `select_objects`.

    Raises:
        UserError: a folder or file of the set is missing, a list cannot be read; and as `select_objects`.
    """
    names = None if list is None else read_list(Path(list), "voc", log)
    drawn, listed = names is None, f"ImageSets/Segmentation/{split}.txt"
    needed = ["JPEGImages", "SegmentationObject", "SegmentationClass", *([listed] if drawn else [])]
    place = find_set(root or "", ["", "VOC2012", "VOCdevkit/VOC2012"], needed, "VOC 2012", VOC_LAYOUT, VOC_SOURCE)
    if names is None:
        names = sorted(read_names(place / listed, "the list of images", log))
    candidates, over = VocImages(place, names), largest_over if drawn else None
    return select_objects(
        candidates, count=count, largest_over=over, min_area=min_area, on_error=on_error, seed=seed, log=log
    )


RESOLUTION = "480p"
DAVIS_LAYOUT = """\
  DAVIS/
    JPEGImages/480p/bear/00000.jpg ...
    Annotations/480p/bear/00000.png ...
    ImageSets/2017/{train,val}.txt"""
DAVIS_SOURCE = "https://davischallenge.org/davis2017/code.html (DAVIS-2017-trainval-480p.zip)"


@dataclass(frozen=True)
class Frame:
    """A frame '<sequence>/<file's stem>', its number, and why it cannot be used, else ''."""

    name: str
    sequence: str
    number: int
    fault: str = ""


class DavisFrames(ImageFiles):
    """Frames of DAVIS 2017, named '<sequence>/<frame>'. An object is the same instance in all frames of its sequence.

    Instances have no class: their label is '<sequence>/<instance>'.
    """

    kind = "davis"

    def __init__(self, root: Path, frames: Sequence[Frame]) -> None:
        super().__init__(
            [frame.name for frame in frames], [frame.sequence for frame in frames], [frame.number for frame in frames]
        )
        self.root = root
        self.faults = {frame.name: frame.fault for frame in frames if frame.fault}

    def file(self, row: int) -> Path:
        return self.root / "JPEGImages" / RESOLUTION / f"{self.names[row]}.jpg"

    def read(self, row: int) -> Annotation:
        if self.names[row] in self.faults:
            raise UserError(self.faults[self.names[row]])
        numbers = read_numbers(self._mask(row))
        check_not_ignored(numbers)
        return Annotation(
            [
                Instance(int(number), f"{self.sequences[row]}/{number}", numbers == number)
                for number in np.unique(numbers)
                if number not in (0, IGNORED)
            ]
        )

    def annotation_digest(self, row: int) -> str:
        return digest(self._mask(row).read_bytes())

    def _mask(self, row: int) -> Path:
        return self.root / "Annotations" / RESOLUTION / f"{self.names[row]}.png"


def load_davis(
    root: Folder | None = None,
    split: Annotated[str, Text()] = "val",
    list: Folder | None = None,
    count: Count | None = None,
    every: Count = 1,
    frames: Count | None = None,
    *,
    min_area: AreaShare = 0.0,
    on_error: OnError = "error",
    seed: int = 0,
    log: Log = warn,
) -> Selected:
    """Frames of videos of DAVIS 2017, in order.

    Args:
        root: the folder DAVIS, or the folder that holds it.
        split: a file of ImageSets/2017; without effect on a list.
        list: of sequences to use instead, see `read_list`. One without frames is one candidate that cannot be read.
        count: sequences, drawn with `seed`, or the first so many of a list; None means all.
        every, frames: takes each `every`-th frame of a sequence, and `frames` of them in all; None means all.
        min_area, on_error, log: see `select_objects`.

    Raises:
        UserError: a folder or file of the set is missing, a list cannot be read, or there are fewer sequences than
            asked; and as `select_objects`.
    """
    check_settings(count=count, every=every, frames=frames)
    named = None if list is None else read_list(Path(list), "davis", log)
    drawn, listed = named is None, f"ImageSets/2017/{split}.txt"
    needed = [f"JPEGImages/{RESOLUTION}", f"Annotations/{RESOLUTION}", *([listed] if drawn else [])]
    place = find_set(root or "", ["", "DAVIS"], needed, "DAVIS 2017", DAVIS_LAYOUT, DAVIS_SOURCE)
    if named is None:
        named = sorted(read_names(place / listed, "the list of sequences", log))
    if count is not None and count > len(named):
        raise UserError(f"objects.count={count}: there are only {len(named)} sequences; ask for fewer")
    if count is not None and drawn:
        named = sorted(np.random.default_rng(seed).permutation(named)[:count].tolist())
    found = []
    for sequence in named[:count]:
        numbered, others = _frames(place, sequence)
        found += numbered[::every][:frames] + others
    return select_objects(DavisFrames(place, found), min_area=min_area, on_error=on_error, seed=seed, log=log)


def _frames(place: Path, sequence: str) -> tuple[list[Frame], list[Frame]]:
    """All with a picture or a mask, in the order of their numbers; and files that are no frames, with the reason."""
    pictures, masks = (place / kind / RESOLUTION / sequence for kind in ("JPEGImages", "Annotations"))
    stems = {path.stem for path in (*pictures.glob("*.jpg"), *masks.glob("*.png")) if not path.name.startswith(".")}
    numbers = {stem: int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
    times = Counter(numbers.values())
    numbered, others = [], []
    for stem in sorted(stems, key=lambda stem: (numbers.get(stem, -1), stem)):
        name = f"{sequence}/{stem}"
        if stem not in numbers:
            others.append(Frame(name, sequence, 0, "its name is not the number of a frame"))
        elif times[numbers[stem]] > 1:
            others.append(Frame(name, sequence, 0, f"{times[numbers[stem]]} files are frame {numbers[stem]}"))
        else:
            numbered.append(Frame(name, sequence, numbers[stem]))
    if not stems:
        there = ", ".join(sorted(path.name for path in pictures.glob("*"))[:3])
        fault = f"there is no frame in {pictures}" + (f", such as 00000.jpg, but {there}" if there else "")
        others.append(Frame(sequence, sequence, 0, fault))
    return numbered, others

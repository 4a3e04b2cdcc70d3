"""Pascal VOC 2012: objects with a class and a mask, in the folders of its development kit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffprobe.data.mask_numbers import IGNORED, check_not_ignored, check_not_luma, read_numbers
from diffprobe.data.objects import Annotation, ImageFiles, Instance, digest, find_set
from diffprobe.data.text_lists import Log, read_names, warn
from diffprobe.errors import UserError

# In the order of their numbers in SegmentationClass, from 1.
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LAYOUT = """\
  VOCdevkit/VOC2012/
    JPEGImages/2007_000032.jpg ...
    SegmentationObject/2007_000032.png ...
    SegmentationClass/2007_000032.png ...
    ImageSets/Segmentation/{train,val,trainval}.txt"""
SOURCE = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar)"


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
                reading.faults.append((int(number), f"its pixels have {_said(found)}; one of 1 to 20 is wanted"))
        return reading

    def annotation_digest(self, row: int) -> str:
        return digest(*(path.read_bytes() for path in self._masks(row)))

    def _masks(self, row: int) -> list[Path]:
        name = f"{self.names[row]}.png"
        return [self.root / "SegmentationObject" / name, self.root / "SegmentationClass" / name]


def _said(classes: list[int]) -> str:
    if not classes:
        return "no class"
    return f"the class{'es' if len(classes) > 1 else ''} {', '.join(map(str, classes))}"


def voc_images(
    root: str | Path, split: str = "trainval", names: Sequence[str] | None = None, log: Log = warn
) -> VocImages:
    """All candidates of a split, sorted, or those named. No image is opened yet.

    Args:
        root: VOCdevkit, the folder VOC2012 in it, or the folder that holds it.
        split: a file of ImageSets/Segmentation; without effect on images that are named.
        log: takes a line for what is odd about the split's list.

    Raises:
        UserError: a folder or file of the set is missing, or the split's list cannot be read.
    """
    listed = f"ImageSets/Segmentation/{split}.txt"
    needed = ["JPEGImages", "SegmentationObject", "SegmentationClass", *([listed] if names is None else [])]
    place = find_set(root, ["", "VOC2012", "VOCdevkit/VOC2012"], needed, "VOC 2012", LAYOUT, SOURCE)
    if names is None:
        names = sorted(read_names(place / listed, "the list of images", log))
    return VocImages(place, names)

"""COCO 2017: objects of the twenty classes of VOC, under VOC's names, in the official folders."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from diffprobe.data.annotated_images import ImageFiles, Instance, Reading, digest, find_set
from diffprobe.data.coco_masks import decode_segmentation
from diffprobe.data.object_images import AnnotatedObject
from diffprobe.data.voc import CLASSES
from diffprobe.errors import UserError

SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
VOC_NAMES = {
    **{name: name for name in CLASSES},
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
LAYOUT = """\
  coco/
    annotations/instances_{train,val}2017.json
    train2017/000000000009.jpg ...
    val2017/000000000139.jpg ..."""
SOURCE = "https://cocodataset.org/#download (annotations_trainval2017.zip, train2017.zip, val2017.zip)"


@dataclass(frozen=True)
class CocoImage:
    """One image: its file, its size, (number, label, segmentation) of each object, and what is wrong with all of it.

    An object whose class is unknown has the label ''.
    """

    file: Path
    height: int = 0
    width: int = 0
    annotations: tuple[tuple[int, str, Any], ...] = ()
    wrong: str = ""


class CocoImages(ImageFiles):
    """Images of COCO 2017. Crowds and other classes are left out; objects are numbered by their annotation's id."""

    kind = "coco"

    def __init__(self, images: dict[str, CocoImage]) -> None:
        super().__init__(list(images))
        self.images = images

    def file(self, row: int) -> Path:
        return self.images[self.names[row]].file

    def read(self, row: int) -> Reading:
        image = self.images[self.names[row]]
        if image.wrong:
            raise UserError(image.wrong)
        reading = Reading()
        for number, label, segmentation in image.annotations:
            try:
                if not label:
                    raise UserError("its class is not among the file's categories")
                mask = decode_segmentation(segmentation, image.height, image.width)
                reading.instances.append(Instance(number, label, mask))
            except UserError as error:
                reading.wrong.append((number, str(error)))
        return reading

    def annotation_digest(self, row: int) -> str:
        return digest(json.dumps(self.images[self.names[row]].annotations).encode())

    def chosen(self, rows: Sequence[int], objects: Sequence[list[AnnotatedObject]]) -> Self:
        chosen = super().chosen(rows, objects)
        chosen.images = {name: self.images[name] for name in chosen.names}
        return chosen


def coco_images(root: str | Path, split: str = "val", names: Sequence[str] | None = None) -> CocoImages:
    """All images with objects of the twenty classes, sorted, or those named ('000000000139'). None is opened yet.

    Raises:
        UserError: `split` is unknown, a folder or file of the set is missing, or its annotations cannot be read.
    """
    if split not in SPLITS:
        raise UserError(f"objects.split={split}: choose one of {', '.join(SPLITS)}")
    files = [f"annotations/instances_{part}2017.json" for part in SPLITS[split]]
    folders = [f"{part}2017" for part in SPLITS[split]]
    place = find_set(root, ["", "coco"], [*files, *folders], "COCO 2017", LAYOUT, SOURCE)
    images: dict[str, CocoImage] = {}
    for file, folder in zip(files, folders, strict=True):
        images |= _read_annotations(place / file, place / folder)
    if names is None:
        return CocoImages({name: images[name] for name in sorted(images) if images[name].annotations})
    unknown = f"{' and '.join(files)} has no image of this name"
    return CocoImages({name: images.get(name, CocoImage(place / name, wrong=unknown)) for name in names})


def _read_annotations(file: Path, folder: Path) -> dict[str, CocoImage]:
    try:
        content = json.loads(file.read_bytes())
        categories = {item["id"]: VOC_NAMES.get(item["name"]) for item in content["categories"]}
        objects = _by_image(content["annotations"], categories)
        images = {
            Path(item["file_name"]).stem: CocoImage(
                folder / item["file_name"], item["height"], item["width"], tuple(objects.pop(item["id"], ()))
            )
            for item in content["images"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no file of COCO instances: {type(error).__name__}: {error}") from error
    for image, left in objects.items():  # of images that the file does not list
        wrong = f"{file.name} has objects of an image {image} that it does not list"
        images[str(image)] = CocoImage(folder / str(image), annotations=tuple(left), wrong=wrong)
    return images


def _by_image(annotations: Iterable[dict[str, Any]], categories: dict[int, str | None]) -> dict[int, list[Any]]:
    """(number, label, segmentation) of the objects of each image, in the order of their numbers."""
    found = defaultdict(list)
    for item in sorted(annotations, key=lambda item: item["id"]):
        label = categories.get(item["category_id"], "")
        if label is not None and not item.get("iscrowd"):
            found[item["image_id"]].append((item["id"], label, item.get("segmentation")))
    return found

"""COCO 2017: objects of the twenty classes of VOC, under VOC's names; masks from polygons and run lengths."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

import numpy as np

from diffprobe.data.coco_file import CocoImage, read_coco_file
from diffprobe.data.images import OnError
from diffprobe.data.object_selection import AreaShare, Selected, read_list, select_objects, without_extension
from diffprobe.data.objects import AnnotatedObject, Annotation, ImageFiles, Instance, digest, find_set
from diffprobe.data.prompts import Log, warn
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Count, Folder, checked_value

SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}
LAYOUT = """\
  coco/
    annotations/instances_{train,val}2017.json
    train2017/000000000009.jpg ...
    val2017/000000000139.jpg ..."""
SOURCE = "https://cocodataset.org/#download (annotations_trainval2017.zip, train2017.zip, val2017.zip)"
CORNERS = 3  # the fewest of a polygon
FAR = 10  # sides of its image that a corner may lie outside of it; pycocotools walks along every edge, however long
SHOWN_DIGITS = 12
LONGEST_RUN = 7  # characters: more bits than any image has pixels


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """[height, width] bool.

    Raises:
        UserError: there is none, it is none of COCO's, it is of another size, or it lies far outside of its image.
    """
    if not segmentation:
        raise UserError("its annotation has no segmentation")
    if isinstance(segmentation, dict):
        return _from_run_lengths(segmentation, height, width)
    return _from_polygons(segmentation, height, width)


def _from_polygons(polygons: Any, height: int, width: int) -> np.ndarray:
    from pycocotools import mask

    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise UserError("its segmentation is neither polygons, [[x, y, x, y, ...], ...], nor run lengths")
    for polygon in polygons:
        _check_polygon(polygon, height, width)
    corners: Any = [[float(value) for value in polygon] for polygon in polygons]
    # Merged before they are decoded, since each would take a mask of its own
    return mask.decode(mask.merge(mask.frPyObjects(corners, height, width))) > 0


def _check_polygon(polygon: list[Any], height: int, width: int) -> None:
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in polygon):
        raise UserError("its segmentation has a polygon that is not a list of numbers [x, y, x, y, ...]")
    if len(polygon) < 2 * CORNERS or len(polygon) % 2:
        raise UserError("its segmentation has a polygon of fewer than three corners, or with half a corner")
    for corner in zip(polygon[::2], polygon[1::2], strict=True):
        # Compared before they become floats, which whole numbers may be too large for; NaN is in no range
        if not all(-FAR * side <= at <= (FAR + 1) * side for at, side in zip(corner, (width, height), strict=True)):
            shown = ", ".join(_shown(at) for at in corner)
            raise UserError(f"its segmentation has the corner ({shown}), not near its image of {width} x {height}")


def _shown(at: float) -> str:
    digits = str(at)
    if len(digits) <= SHOWN_DIGITS:
        return digits
    return f"{at:.3g}" if isinstance(at, float) else f"{digits[:3]}... of {len(digits)} digits"


def _from_run_lengths(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Decoded here, since pycocotools leaves unset what the runs do not reach."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise UserError(f"its mask has the size (height, width) {str(size)[:40]}, its image {[height, width]}")
    runs: Any = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):  # True is an int too
        raise UserError("the run lengths of its mask are broken")
    if sum(runs) != height * width:
        raise UserError(f"the run lengths of its mask cover {sum(runs)} pixels, its image has {height * width}")
    values = np.arange(len(runs)) % 2 == 1  # background and object in turn
    return np.repeat(values, runs).reshape(width, height).T  # column by column


def _unpacked(text: str) -> list[int] | None:
    """Run lengths from COCO's string, None where it is broken: five bits a character, lowest first; bit 32 says that
    more follow, '0' is 0; from the fourth run on it has differences to the run before the last."""
    codes = [ord(character) - 48 for character in text]
    if not all(0 <= code < 64 for code in codes) or (codes and codes[-1] & 32):
        return None
    ends = [0, *(place + 1 for place, code in enumerate(codes) if not code & 32)]
    if any(end - start > LONGEST_RUN for start, end in pairwise(ends)):
        return None
    runs: list[int] = []
    for start, end in pairwise(ends):
        value = sum((code & 31) << (5 * place) for place, code in enumerate(codes[start:end]))
        if codes[end - 1] & 16:  # negative
            value -= 1 << (5 * (end - start))
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


class CocoImages(ImageFiles):
    """Images of COCO 2017. Crowds and other classes are left out; objects are numbered by their annotation's id."""

    kind = "coco"

    def __init__(self, images: dict[str, CocoImage]) -> None:
        super().__init__(list(images))
        self.images = images

    def file(self, row: int) -> Path:
        return self.images[self.names[row]].file

    def read(self, row: int) -> Annotation:
        image = self.images[self.names[row]]
        if image.fault:
            raise UserError(image.fault)
        reading = Annotation()
        for item in image.objects:
            try:
                if item.fault or isinstance(item.number, str):
                    raise UserError(item.fault)
                mask = decode_segmentation(item.segmentation, image.height, image.width)
                reading.instances.append(Instance(item.number, item.label, mask))
            except UserError as error:
                reading.faults.append((item.number, str(error)))
        return reading

    def annotation_digest(self, row: int) -> str:
        objects = self.images[self.names[row]].objects
        return digest(json.dumps([[item.number, item.label, item.segmentation] for item in objects]).encode())

    def subset(self, rows: Sequence[int], objects: Sequence[list[AnnotatedObject]]) -> Self:
        chosen = super().subset(rows, objects)
        chosen.images = {name: self.images[name] for name in chosen.names}
        return chosen


def load_coco(
    root: Folder | None = None,
    split: Annotated[str, Choice(*SPLITS)] = "val",
    list: Folder | None = None,
    count: Count | None = None,
    largest_over: AreaShare = 0.01,
    *,
    min_area: AreaShare = 0.0,
    on_error: OnError = "error",
    seed: int = 0,
    log: Log = warn,
) -> Selected:
    """Images of COCO 2017 with objects of the twenty classes, as `load_voc`.

    An image is named by its path below its folder without the ending ('000000000139'); where two would have one name,
    by folder and whole path ('val2017/0001.png'). A list may name it without its folders, if no other is named so.

    Args:
        list: of images, which are looked for in the annotations of `split`.
    """
    checked_value(split, Annotated[str, Choice(*SPLITS)], "objects.split")
    names = None if list is None else read_list(Path(list), "coco", log)
    candidates = _candidates(root or "", split, names, log)
    over = largest_over if names is None else None
    return select_objects(
        candidates, count=count, largest_over=over, min_area=min_area, on_error=on_error, seed=seed, log=log
    )


def _candidates(root: str | Path, split: str, names: Sequence[str] | None, log: Log) -> CocoImages:
    """All images with objects of the twenty classes, sorted, or those named. Opens none of them."""
    files = [f"annotations/instances_{part}2017.json" for part in SPLITS[split]]
    folders = [f"{part}2017" for part in SPLITS[split]]
    place = find_set(root, ["", "coco"], [*files, *folders], "COCO 2017", LAYOUT, SOURCE)
    found: list[tuple[str, str, CocoImage]] = []
    for file, folder in zip(files, folders, strict=True):
        images, left_out = read_coco_file(place / file, place / folder)
        found += [(folder, path, image) for path, image in images.items()]
        for line in left_out.lines(file):
            log(line)
    short = [without_extension(path) for _, path, _ in found]
    times = Counter(short)
    by_name = {
        name if times[name] == 1 else f"{folder}/{path}": image
        for name, (folder, path, image) in zip(short, found, strict=True)
    }
    where = " and ".join(files)
    if names is not None:
        return CocoImages(_looked_up(names, by_name, place, where))
    if not any(image.objects for image in by_name.values()):
        raise UserError(f"COCO 2017: no image of {where} has an object of one of VOC's twenty classes")
    return CocoImages({name: by_name[name] for name in sorted(by_name) if by_name[name].objects})


def _looked_up(names: Sequence[str], images: dict[str, CocoImage], place: Path, where: str) -> dict[str, CocoImage]:
    """The images that a list names, in its order; those that are not there have a fault."""
    by_path: dict[str, list[str]] = defaultdict(list)
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in images:
        by_path[without_extension(name)].append(name)
        by_stem[without_extension(PurePosixPath(name).name)].append(name)
    found: dict[str, CocoImage] = {}
    for name in names:
        alike = by_path.get(name) or by_stem.get(PurePosixPath(name).name, [])
        if len(alike) == 1:
            if alike[0] in found:
                raise UserError(f"objects.list names the image {alike[0]} twice; keep one")
            found[alike[0]] = images[alike[0]]
        elif alike:
            wrong = f"the list may mean {' or '.join(alike[:3])}; name its folder too"
            found[name] = CocoImage(place / name, fault=wrong)
        else:
            found[name] = CocoImage(place / name, fault=f"{where} has no image of this name")
    return found

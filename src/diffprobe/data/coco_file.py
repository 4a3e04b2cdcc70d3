"""Reads COCO's instances_*.json: its images with the objects of VOC's twenty classes, and what is wrong with them.

Other programs write files more or less like COCO's, so an image or object with a fault is kept with its reason.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from diffprobe.data.mask_folders import CLASSES
from diffprobe.errors import UserError, one_line

LISTS = ("images", "annotations", "categories")
LARGEST_PICTURE = 120_000_000  # pixels of an image; its masks are as large
LONGEST_NAME = 255  # bytes of the name of a file
LONGEST_ID = 18  # digits; longer ones stay text
SHOWN_CLASSES = 5  # in a message
SHOWN_CHARACTERS = 50  # of a value in a message
VOC_NAMES = {
    **{name: name for name in CLASSES},
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


Key = int | str  # an id; '7' is 7


@dataclass(frozen=True)
class CocoObject:
    """An object: the id of its annotation, its class, its segmentation as in the file, and what is wrong, or ''."""

    number: Key
    label: str = ""
    segmentation: Any = None
    fault: str = ""


@dataclass(frozen=True)
class CocoImage:
    """An image: its file, its size, its objects in the order of their numbers, and what is wrong with it, or ''."""

    file: Path
    height: int = 0
    width: int = 0
    objects: tuple[CocoObject, ...] = ()
    fault: str = ""


# The path of an image below its folder, its id, and the image without its objects
_Entry = tuple[str, Key | None, CocoImage]


@dataclass
class OmittedCounts:
    """How much of a file is left out by rule."""

    crowds: int = 0
    other_classes: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    def lines(self, file: str) -> list[str]:
        """Sentences for people; none where nothing is left out."""
        parts = []
        if self.other_classes:
            common = self.other_classes.most_common(SHOWN_CLASSES)
            named = ", ".join(f"{times} {_shown(name)[1:-1]}" for name, times in common)
            more = f" and {len(self.other_classes) - len(common)} more" if len(self.other_classes) > len(common) else ""
            objects = _counted(self.other_classes.total(), "object")
            parts.append(f"{objects} of classes that VOC does not have ({named}{more})")
        if self.crowds:
            parts.append(_counted(self.crowds, "crowd"))
        lines = [f"{file}: left out {' and '.join(parts)}"] if parts else []
        if self.repeated:
            lines.append(f"{file}: images lists {_counted(self.repeated, 'image')} again, with the same values")
        return lines


def read_coco_file(file: Path, folder: Path) -> tuple[dict[str, CocoImage], OmittedCounts]:
    """All images of a file, by their path below `folder`, and what is left out by rule.

    An image or object without such a path is named by its place in the file, from 0: 'images[3]', 'annotations[7]'.

    Raises:
        UserError: the file cannot be read, or holds no COCO instances.
    """
    content = _content(file)
    left_out = OmittedCounts()
    listed = [_entry(item, f"images[{place}]", folder) for place, item in enumerate(content["images"])]
    entries = list(dict.fromkeys(listed))  # several that say the same are one
    left_out.repeated = len(listed) - len(entries)
    objects, lost = _objects(content["annotations"], _classes(content["categories"], file), left_out)
    by_name: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        by_name[entry[0]].append(entry)
    times = Counter(key for _, key, _ in entries)
    images: dict[str, CocoImage] = {}
    for name, same in by_name.items():
        _, key, image = same[0]
        fault = next((each.fault for _, _, each in same if each.fault), "")
        if len(same) > 1:
            fault = f"{file.name} lists its file {len(same)} times, with different values"
        elif key is not None and times[key] > 1:
            fault = f"{file.name} gives its id {_shown(key)} to {times[key]} images"
        found = [item for _, key, _ in same if key is not None for item in objects.get(key, ())]
        images[name] = replace(image, objects=tuple(found), fault=fault)
    for key in objects.keys() - times.keys():
        wrong = f"{file.name} has objects of an image {_shown(key)} that it does not list"
        images[f"image_id {_shown(key)}"] = CocoImage(folder, objects=tuple(objects[key]), fault=wrong)
    for item in lost:
        images[str(item.number)] = CocoImage(folder, objects=(item,), fault=item.fault)
    return images, left_out


def _content(file: Path) -> dict[str, list[Any]]:
    no_file = f"{file} is no file of COCO instances: it"
    if not file.is_file():
        raise UserError(f"{no_file} is no regular file")
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{no_file} cannot be read as JSON, which may be damaged or cut off ({one_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{no_file} holds a {type(content).__name__}, not an object with the lists {', '.join(LISTS)}")
    missing = [name for name in LISTS if not isinstance(content.get(name), list)]
    if missing:
        raise UserError(f"{no_file} has no list {', '.join(map(repr, missing))}")
    return content


def _classes(categories: list[Any], file: Path) -> dict[Key, str]:
    """The name of each category, as in the file."""
    names: dict[Key, str] = {}
    for place, item in enumerate(categories):
        key = _key(item.get("id")) if isinstance(item, dict) else None
        name = item.get("name") if isinstance(item, dict) else None
        if key is None or not isinstance(name, str):
            raise UserError(f"{file} is no file of COCO instances: categories[{place}] has no id or no name")
        if names.setdefault(key, name) != name:
            raise UserError(f"{file} gives two categories the id {_shown(key)}: {names[key]!r} and {name!r}")
    return names


@cache
def voc_class(name: str) -> str | None:
    """VOC's name of a class of COCO, in whatever case; None where VOC does not have it."""
    return VOC_NAMES.get(" ".join(name.casefold().replace("_", " ").replace("-", " ").split()))


def _entry(item: Any, place: str, folder: Path) -> _Entry:
    if not isinstance(item, dict):
        return place, None, CocoImage(folder, fault=f"its entry {_shown(item)} is no object")
    key, file_name = _key(item.get("id")), item.get("file_name")
    name = _path_below(file_name)
    if name is None:
        fault = f"its file_name is {_shown(file_name)}; a path below {folder.name} is wanted"
        return place, key, CocoImage(folder, fault=fault)
    height, width = item.get("height"), item.get("width")
    if key is None:
        fault = f"its id is {_shown(item.get('id'))}; a whole number is wanted"
    elif type(height) is not int or type(width) is not int or min(height, width) < 1:  # True is an int too
        fault = f"its height is {_shown(height)} and its width {_shown(width)}; numbers of pixels are wanted"
    elif height * width > LARGEST_PICTURE:
        fault = f"its size is said to be {width} x {height} pixels, more than are read"
    else:
        return name, key, CocoImage(folder / name, height, width)
    return name, key, CocoImage(folder / name, fault=fault)


def _path_below(file_name: Any) -> str | None:
    """A path below a folder; None where it is none, leads out of the folder, or cannot be the name of a file."""
    if not isinstance(file_name, str) or "://" in file_name or "\0" in file_name:
        return None
    path = PurePosixPath(file_name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        return None
    try:
        longest = max(len(part.encode()) for part in path.parts)
    except UnicodeEncodeError:  # JSON can hold halves of characters
        return None
    return path.as_posix() if longest <= LONGEST_NAME else None


def _objects(
    annotations: list[Any], classes: dict[Key, str], left_out: OmittedCounts
) -> tuple[dict[Key, list[CocoObject]], list[CocoObject]]:
    """The objects of each image in the order of their numbers, and those of no known image."""
    found: dict[Key, list[CocoObject]] = defaultdict(list)
    lost = []
    for place, item in enumerate(annotations):
        made = _object(item, f"annotations[{place}]", classes, left_out)
        if made is None:
            continue
        image = _key(item.get("image_id")) if isinstance(item, dict) else None
        if image is None:
            lost.append(CocoObject(f"annotations[{place}]", fault=made.fault or "it does not say of which image it is"))
        else:
            found[image].append(made)
    return {image: _unique(objects) for image, objects in found.items()}, lost


def _object(item: Any, place: str, classes: dict[Key, str], left_out: OmittedCounts) -> CocoObject | None:
    """None for what is left out by rule."""
    if not isinstance(item, dict):
        return CocoObject(place, fault=f"its annotation {_shown(item)} is no object")
    number, category, crowd = _key(item.get("id")), _key(item.get("category_id")), item.get("iscrowd", 0)
    name = None if category is None else classes.get(category)
    label = None if name is None else voc_class(name)
    if name is not None and label is None:
        left_out.other_classes[name] += 1
        return None
    if crowd == 1:
        left_out.crowds += 1
        return None
    segmentation, wrong = item.get("segmentation"), ""
    if not isinstance(number, int):
        wrong = f"the id of its annotation is {_shown(item.get('id'))}; a whole number is wanted"
    elif "category_id" not in item:
        wrong = "its annotation has no category_id"
    elif label is None:
        wrong = f"its class is not among the file's categories: category_id {_shown(item['category_id'])}"
    elif crowd not in (0, None):
        wrong = f"its iscrowd is {_shown(crowd)}; 0 or 1 is wanted"
    elif not segmentation and item.get("bbox"):
        wrong = "its annotation has no segmentation, only a box"
    return CocoObject(number if isinstance(number, int) else place, label or "", segmentation, wrong)


def _unique(objects: list[CocoObject]) -> list[CocoObject]:
    """In the order of their numbers. Several with one number are one, with a fault."""
    by_number: dict[Key, list[CocoObject]] = defaultdict(list)
    for item in objects:
        by_number[item.number].append(item)
    return [
        same[0]
        if len(same) == 1
        else replace(same[0], fault=f"{len(same)} annotations of its image have this id; give each its own")
        for _, same in sorted(by_number.items(), key=lambda each: (isinstance(each[0], str), each[0]))
    ]


def _key(value: Any) -> Key | None:
    """An id as it is compared: 7, 7.0 and '7' are one; None for what is no id."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= LONGEST_ID:
        return int(value)
    return value


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        value = f"{value[:SHOWN_CHARACTERS]}..."
    text = repr(value)
    return text if len(text) <= 2 * SHOWN_CHARACTERS else f"{text[: 2 * SHOWN_CHARACTERS]}..."

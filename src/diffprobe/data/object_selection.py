"""Selects the images and objects of a set that are used, by the rule of Diff-Props or a list, and names the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np

from diffprobe.data.images import IMAGE_EXTENSIONS, OnError
from diffprobe.data.objects import AnnotatedImages, AnnotatedObject, ObjectImages, Problem
from diffprobe.data.prompts import Log, Row, check_unique, read_lines, read_table, warn
from diffprobe.errors import UserError
from diffprobe.ranges import Count, Number, checked_value
from diffprobe.threads import decoding_threads

# The names of a set in a list's column `dataset`; Diff-Props says pascal.
LIST_COLUMNS = {"voc": ("pascal", "voc"), "coco": ("coco",), "davis": ("davis",)}
CHECK_INTERVAL = 64  # images that are read at once, before asking whether there are enough

AreaShare = Annotated[float, Number(0, below=1)]
Selected = tuple[ObjectImages, list[Problem]]
_HINTS = {"count": Count, "every": Count, "frames": Count, "on_error": OnError, "min_area": AreaShare}


def check_settings(**settings: Any) -> None:
    """Raises UserError for a setting of `objects` that is out of its range; None is in it."""
    for name, value in settings.items():
        if value is not None:
            checked_value(value, _HINTS[name], f"objects.{name}")


@dataclass
class _Selection:
    """The objects of each row that is used, problems, what is left out by rule, how many images were inspected, and how
    many of them have no object that is large enough."""

    objects: dict[int, list[AnnotatedObject]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    inspected: int = 0
    too_small: int = 0


def select_objects(
    candidates: AnnotatedImages,
    *,
    count: int | None = None,
    largest_over: float | None = None,
    min_area: float,
    on_error: str,
    seed: int,
    log: Log,
) -> Selected:
    """The images of a set with the objects to be used, and all that was left out of them. Decodes everything once.

    Args:
        count: of images; the first so many that can be used.
        largest_over: share of its image that an image's largest object must exceed, as in Diff-Props (section 3.1);
            candidates are then taken in an order drawn with `seed`. None takes them as they come.
        min_area: objects that cover a smaller share of their image are left out and named.
        on_error: 'skip' leaves out what is wrong and names it, 'error' stops.
        log: takes a line for each kind of thing that is left out by rule.

    Raises:
        UserError: a setting is out of range, something is wrong with an image or an object and `on_error` is 'error',
            or there are not as many images as asked.
    """
    check_settings(count=count, min_area=min_area, on_error=on_error)
    kind, drawn = candidates.kind, largest_over is not None
    order = np.random.default_rng(seed).permutation(len(candidates)).tolist() if drawn else range(len(candidates))
    found = _select(candidates, order, count, largest_over, min_area)
    if found.problems and on_error == "error":
        shown = "; ".join(map(str, found.problems[:3]))
        raise UserError(
            f"{_counted(found.problems)} in the {found.inspected} images of {kind} that were looked at: {shown}; "
            "objects.on_error=skip leaves them out"
        )
    if not found.objects or len(found.objects) < (count or 0):
        rule = f" with an object that covers more than {largest_over:.2%}" if drawn else ""
        raise UserError(
            f"{len(found.objects)} images of {kind}{rule} can be used, {count or 'at least 1'} wanted; "
            f"{found.inspected} were looked at, {_counted(found.problems)} found"
            + "".join(f"; {problem}" for problem in [*found.problems, *found.left_out][:3])
        )
    if found.too_small:
        log(
            f"{kind}: left out {found.too_small} of {found.inspected} images that were looked at, without an object "
            f"that covers more than {largest_over:.2%} (objects.largest_over)"
        )
    rows = sorted(found.objects)  # by name where drawn, else as listed
    return candidates.subset(rows, [found.objects[row] for row in rows]), [*found.problems, *found.left_out]


def _counted(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"


def _select(
    candidates: AnnotatedImages, order: Sequence[int], wanted: int | None, over: float | None, min_area: float
) -> _Selection:
    """Takes candidates in order until there are enough, so that images that are not needed are not read."""
    found = _Selection()
    first: dict[str, str] = {}  # the image of each picture that is used
    for row, objects, problems in _read_candidates(candidates, order):
        image = candidates.names[row]
        found.inspected += 1
        found.problems += problems
        if over is not None and max((item.area for item in objects), default=0) <= over:
            found.too_small += not problems
            continue
        large = [item for item in objects if item.area >= min_area]
        found.left_out += [
            Problem(image, item.name, f"it covers {item.area:.2%} of its image, less than objects.min_area")
            for item in objects
            if item.area < min_area
        ]
        if large and first.setdefault(candidates.picture_key(row), image) != image:
            reason = f"it shows the same picture as {first[candidates.picture_key(row)]}, whose objects are not others"
            found.problems.append(Problem(image, "", reason))
        elif large:
            found.objects[row] = large
        elif not problems:
            found.left_out.append(Problem(image, "", "it has no object"))
        if len(found.objects) == wanted:
            break
    return found


def _read_candidates(
    candidates: AnnotatedImages, order: Sequence[int]
) -> Iterator[tuple[int, list[AnnotatedObject], list[Problem]]]:
    with decoding_threads() as pool:
        for start in range(0, len(order), CHECK_INTERVAL):
            part = order[start : start + CHECK_INTERVAL]
            for row, (objects, wrong) in zip(part, pool.map(candidates.usable_objects, part), strict=True):
                yield row, objects, wrong


def read_list(path: Path, kind: str, log: Log = warn) -> list[str]:
    """The images (of DAVIS: sequences) of a set that a list names, in its order, without endings.

    Folders are left out too, except for COCO, whose images may lie in folders of their own. A CSV file has a column
    `src` and maybe `dataset`, by which rows are chosen ('pascal' or 'voc', 'coco', 'davis'); any other file has one
    name a line.

    Raises:
        UserError: the file cannot be read, names nothing of this set, or names something twice.
    """
    if path.suffix.lower() == ".csv":
        found = _listed(read_table(path, "objects.list", [["src"]], ["dataset"], log), path, kind, log)
    else:
        found = [line for _, line in read_lines(path, "objects.list", log)]
    if not found:
        raise UserError(
            f"{path} names nothing of {kind}; its column dataset should say {' or '.join(LIST_COLUMNS[kind])}"
        )
    paths = [without_extension(entry.replace("\\", "/")) for entry in found]
    names = paths if kind == "coco" else [PurePosixPath(path).name for path in paths]
    check_unique(names, path)
    return names


def without_extension(path: str) -> str:
    """'x/0001.jpg' -> 'x/0001'; what is no ending of an image stays: 'tiny.2'."""
    place = PurePosixPath(path)
    return (place.with_suffix("") if place.suffix.lower() in IMAGE_EXTENSIONS else place).as_posix()


def _listed(rows: Sequence[Row], path: Path, kind: str, log: Log) -> list[str]:
    """The names in the rows of this set; logs how many rows are of other sets."""
    known = {name: each for each, names in LIST_COLUMNS.items() for name in names}
    found, others = [], Counter[str]()
    for row in rows:
        src, dataset = row.cells["src"].strip(), row.cells.get("dataset", "").strip()
        if dataset and dataset.casefold() not in known:
            raise UserError(f"{path}, line {row.line}: unknown dataset {dataset!r}; known are {', '.join(known)}")
        if not src:
            raise UserError(f"{path}, line {row.line}: the row names nothing in its column src")
        if dataset and known[dataset.casefold()] != kind:
            others[dataset] += 1
        else:
            found.append(src)
    if found and others:
        counted = ", ".join(f"{times} of {name}" for name, times in others.items())
        log(f"{path}: rows of other sets than {kind} are left out: {counted}")
    return found

"""Which images and objects of a set are used: the rule of Diff-Props or a list, with all that is wrong named first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated

import numpy as np

from diffprobe.data.coco import coco_images
from diffprobe.data.images import ON_ERROR, without_extension
from diffprobe.data.mask_folders import davis_frames, voc_images
from diffprobe.data.objects import AnnotatedImages, AnnotatedObject, ObjectImages, Problem
from diffprobe.data.prompts import Log, Row, check_unique, read_lines, read_table, warn
from diffprobe.data.scenes import LABELS, moving_scenes, scene_objects
from diffprobe.errors import UserError
from diffprobe.ranges import Choice, Count, Folder, Number, Text
from diffprobe.threads import decoding_threads

# What a list's column `dataset` may call a set; Diff-Props says pascal.
LIST_COLUMNS = {"voc": ("pascal", "voc"), "coco": ("coco",), "davis": ("davis",)}
KINDS = (*LIST_COLUMNS, "scenes", "moving_scenes")
SCENES = 200
CHECK_INTERVAL = 64  # images looked at before asking whether there are enough


@dataclass
class _Selection:
    """What looking at candidates gave: the objects of each row that is used, what is wrong, what is left out, how many
    images were looked at, and how many of them have no object that is large enough."""

    objects: dict[int, list[AnnotatedObject]] = field(default_factory=dict)
    wrong: list[Problem] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)
    looked_at: int = 0
    ruled_out: int = 0


def load_objects(
    kind: Annotated[str, Choice(*KINDS)],
    *,
    root: Folder | None = None,
    split: Annotated[str, Text()] | None = None,
    list: Folder | None = None,
    count: Count | None = None,
    seed: int = 0,
    on_error: Annotated[str, Choice(*ON_ERROR)] = "error",
    largest_over: Annotated[float, Number(0, below=1)] = 0.01,
    min_area: Annotated[float, Number(0, below=1)] = 0.0,
    label: Annotated[str, Choice(*LABELS)] = "shape",
    size: Annotated[int, Number(8, 2048)] = 64,
    every: Count = 1,
    frames: Count | None = None,
    log: Log = warn,
) -> tuple[ObjectImages, list[Problem]]:
    """The images of a set with the objects to be used, and all that was left out of them. Decodes everything once.

    Without a list, images of VOC and COCO are drawn as in Diff-Props (section 3.1): each has an object that covers more
    than `largest_over` of it; `count` of them, drawn with `seed` from the sorted names.

    Args:
        kind: 'voc', 'coco', 'davis', 'scenes' or 'moving_scenes'.
        root: where the user unpacked the set; not needed for scenes.
        split: 'train', 'val' or 'trainval'; by default 'trainval' of VOC, 'val' of COCO and DAVIS.
        list: images, or sequences of DAVIS, instead of a split: CSV with columns src and maybe dataset, or one a line.
            COCO looks for them in the annotations of `split`.
        count: how many images, scenes (by default 200), or sequences of DAVIS. Of a list the first so many.
        on_error: 'skip' leaves out what is wrong and names it, 'error' stops.
        min_area: objects that cover less of their image are left out and named.
        label, size: see `SceneObjects`.
        every, frames: see `davis_frames`.
        log: takes a line for each kind of thing that is left out by rule, and for what is odd about a list.

    Raises:
        UserError: a setting is wrong, the set or the list is missing, something is wrong with an image or an object
            and `on_error` is 'error', or there are not as many images as asked.
    """
    _check(kind, on_error, {"count": count, "every": every, "frames": frames}, min_area)
    names = None if list is None else read_list(Path(list), kind, log)
    candidates = _candidates(kind, root, split, names, count, seed, label, size, every, frames, log)
    drawn = names is None and kind in ("voc", "coco")
    wanted = count if kind in ("voc", "coco") else None  # the others already have so many
    order = np.random.default_rng(seed).permutation(len(candidates)).tolist() if drawn else range(len(candidates))
    found = _select(candidates, order, wanted, largest_over if drawn else None, min_area)
    if found.wrong and on_error == "error":
        shown = "; ".join(map(str, found.wrong[:3]))
        raise UserError(
            f"{_counted(found.wrong)} in the {found.looked_at} images of {kind} that were looked at: {shown}; "
            "objects.on_error=skip leaves them out"
        )
    if not found.objects or len(found.objects) < (wanted or 0):
        rule = f" with an object that covers more than {largest_over:.2%}" if drawn else ""
        raise UserError(
            f"{len(found.objects)} images of {kind}{rule} can be used, {wanted or 'at least 1'} wanted; "
            f"{found.looked_at} were looked at, {_counted(found.wrong)} found"
            + "".join(f"; {problem}" for problem in [*found.wrong, *found.left_out][:3])
        )
    if found.ruled_out:
        log(
            f"{kind}: left out {found.ruled_out} of {found.looked_at} images that were looked at, without an object "
            f"that covers more than {largest_over:.2%} (objects.largest_over)"
        )
    rows = sorted(found.objects)  # by name where drawn, else as listed
    return candidates.subset(rows, [found.objects[row] for row in rows]), [*found.wrong, *found.left_out]


def _counted(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"


def _check(kind: str, on_error: str, positive: dict[str, int | None], min_area: float) -> None:
    if kind not in KINDS:
        raise UserError(f"objects.kind={kind}: choose one of {', '.join(KINDS)}")
    if on_error not in ON_ERROR:
        raise UserError(f"objects.on_error={on_error}: choose one of {', '.join(ON_ERROR)}")
    for name, value in positive.items():
        if value is not None and value < 1:
            raise UserError(f"objects.{name}={value}: must be at least 1")
    if not 0 <= min_area < 1:
        raise UserError(f"objects.min_area={min_area}: give a share of the image from 0 to 1")


def _candidates(
    kind: str,
    root: str | Path | None,
    split: str | None,
    names: Sequence[str] | None,
    count: int | None,
    seed: int,
    label: str,
    size: int,
    every: int,
    frames: int | None,
    log: Log,
) -> AnnotatedImages:
    if kind == "scenes":
        return scene_objects(count or SCENES, seed, label, size)
    if kind == "moving_scenes":
        return moving_scenes(count, seed, every=every, frames=frames, size=size)
    place = root or ""
    if kind == "voc":
        return voc_images(place, split or "trainval", names, log)
    if kind == "coco":
        return coco_images(place, split or "val", names, log)
    return davis_frames(place, split or "val", names, count=count, seed=seed, every=every, frames=frames, log=log)


def _select(
    candidates: AnnotatedImages, order: Sequence[int], wanted: int | None, over: float | None, min_area: float
) -> _Selection:
    """Takes candidates in order until there are enough, so that images that are not needed are not read."""
    found = _Selection()
    first: dict[str, str] = {}  # image by what it shows, of those that are used
    for row, objects, wrong in _read_candidates(candidates, order):
        image = candidates.names[row]
        found.looked_at += 1
        found.wrong += wrong
        if over is not None and max((item.area for item in objects), default=0) <= over:
            found.ruled_out += not wrong
            continue
        kept = [item for item in objects if item.area >= min_area]
        found.left_out += [
            Problem(image, item.name, f"it covers {item.area:.2%} of its image, less than objects.min_area")
            for item in objects
            if item.area < min_area
        ]
        if kept and first.setdefault(candidates.picture_key(row), image) != image:
            reason = f"it shows the same picture as {first[candidates.picture_key(row)]}, whose objects are not others"
            found.wrong.append(Problem(image, "", reason))
        elif kept:
            found.objects[row] = kept
        elif not wrong:
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
    """The images (or, of DAVIS, sequences) of a set that a list names, in its order, without endings.

    Folders are left out too, but for COCO, whose images may lie in folders of their own.

    A CSV file has a column `src` and maybe `dataset`, by which rows are chosen ('pascal' or 'voc', 'coco', 'davis');
    any other file has one name a line.

    Raises:
        UserError: the file cannot be read, names nothing of this set, or names something twice; `kind` is no set of
            files.
    """
    if kind not in LIST_COLUMNS:
        raise UserError(
            f"objects.list={path}: objects.kind={kind} has no files to list; choose {', '.join(LIST_COLUMNS)}"
        )
    called = "objects.list"
    if path.suffix.lower() == ".csv":
        found = _listed(read_table(path, called, [["src"]], ["dataset"], log), path, kind, log)
    else:
        found = [line for _, line in read_lines(path, called, log)]
    if not found:
        raise UserError(
            f"{path} names nothing of {kind}; its column dataset should say {' or '.join(LIST_COLUMNS[kind])}"
        )
    paths = [without_extension(entry.replace("\\", "/")) for entry in found]  # whichever slashes the list has
    names = paths if kind == "coco" else [PurePosixPath(path).name for path in paths]
    check_unique(names, path)
    return names


def _listed(rows: Sequence[Row], path: Path, kind: str, log: Log) -> list[str]:
    """What the rows of this set name; tells how many are of others."""
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

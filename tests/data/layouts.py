"""Tiny copies of VOC 2012, COCO 2017 and DAVIS 2017, in their official layouts, made of rendered pocket scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffprobe.data.coco import load_coco
from diffprobe.data.mask_folders import CLASSES, load_davis, load_voc
from diffprobe.data.scenes import load_moving_scenes, load_scenes
from diffprobe.pocket.render import RenderedScenes, render
from diffprobe.pocket.scenes import SHAPES, Scene, sample_scene

# Shapes as classes of VOC, three of which COCO calls something else.
VOC_OF = {"sphere": "aeroplane", "cube": "diningtable", "cylinder": "pottedplant", "cone": "sheep"}
COCO_CATEGORIES = {
    "person": 1,
    "airplane": 5,
    "sheep": 20,
    "giraffe": 25,
    "potted plant": 64,
    "dining table": 67,
}
COCO_OF = {"sphere": "airplane", "cube": "dining table", "cylinder": "potted plant", "cone": "sheep"}


LOADERS = {
    "voc": load_voc,
    "coco": load_coco,
    "davis": load_davis,
    "scenes": load_scenes,
    "moving_scenes": load_moving_scenes,
}


def load_objects(kind: str, *root: Path, **settings: Any):
    return LOADERS[kind](*root, **settings)


def some_scenes(count: int, start: int = 0) -> list[Scene]:
    """Scenes that `load_scenes` gives as well."""
    return [sample_scene(index, "test") for index in range(start, start + count)]


def walk(scene: Scene, frames: int, stride: float = 0.08) -> list[Scene]:
    """The same scene, seen by a camera that steps to the right."""
    camera, right = np.array(scene.camera), scene.axes[0]
    places = [camera + stride * frame * right for frame in range(frames)]
    return [replace(scene, camera=(float(place[0]), float(place[1]), float(place[2]))) for place in places]


def write_voc(root: Path, scenes: Sequence[Scene], size: int = 64) -> list[str]:
    """VOCdevkit/VOC2012 below `root`; returns the image names. The first half is train, the rest val."""
    folder = root / "VOCdevkit" / "VOC2012"
    rendered = render([*scenes], size)
    names = [f"2007_{number:06d}" for number in range(len(scenes))]
    for row, name in enumerate(names):
        write_picture(folder / "JPEGImages" / f"{name}.jpg", rendered, row)
        numbers = numbered(rendered, row)
        classes = [0, *(CLASSES.index(VOC_OF[SHAPES[shape]]) + 1 for shape in rendered.classes[row] if shape >= 0)]
        write_palette(folder / "SegmentationObject" / f"{name}.png", numbers)
        write_palette(folder / "SegmentationClass" / f"{name}.png", np.array(classes, np.uint8)[numbers])
    half = len(names) // 2
    for split, part in {"train": names[:half], "val": names[half:], "trainval": names}.items():
        _write(folder / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in part))
    return names


def write_coco(root: Path, scenes: Sequence[Scene], size: int = 64, split: str = "val") -> list[str]:
    """annotations/ and {split}2017/ in `root`, masks as run lengths; returns the image names."""
    from pycocotools import mask

    rendered = render([*scenes], size)
    names = [f"{number:012d}" for number in range(1, len(scenes) + 1)]
    images, annotations = [], []
    for row, name in enumerate(names):
        write_picture(root / f"{split}2017" / f"{name}.jpg", rendered, row)
        images.append({"id": row + 1, "file_name": f"{name}.jpg", "height": size, "width": size})
        for slot, instance in enumerate(rendered.instances[row].numpy()):
            if not instance.any():
                continue
            encoded: Any = mask.encode(np.asfortranarray(instance, np.uint8))
            annotations.append(
                {
                    "id": 10 * (row + 1) + slot,
                    "image_id": row + 1,
                    "category_id": COCO_CATEGORIES[COCO_OF[SHAPES[rendered.classes[row, slot]]]],
                    "iscrowd": 0,
                    "segmentation": {"size": [size, size], "counts": encoded["counts"].decode()},
                }
            )
    categories = [{"id": number, "name": name} for name, number in COCO_CATEGORIES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _write(root / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    return names


def write_davis(root: Path, sequences: Mapping[str, Sequence[Scene]], size: int = 64) -> None:
    """JPEGImages/, Annotations/ and ImageSets/ in `root`; a scene a frame, an object's number is its place + 1."""
    for sequence, scenes in sequences.items():
        rendered = render([*scenes], size)
        for row in range(len(scenes)):
            write_picture(root / "JPEGImages" / "480p" / sequence / f"{row:05d}.jpg", rendered, row)
            write_palette(root / "Annotations" / "480p" / sequence / f"{row:05d}.png", numbered(rendered, row))
    names = list(sequences)
    half = len(names) // 2
    for split, part in {"train": names[:half], "val": names[half:]}.items():
        _write(root / "ImageSets" / "2017" / f"{split}.txt", "".join(f"{name}\n" for name in part))


def numbered(rendered: RenderedScenes, row: int) -> np.ndarray:
    """[size, size] uint8: 0 where there is background, else the number of the object, from 1."""
    numbers = torch.arange(1, rendered.instances.shape[1] + 1)[:, None, None]
    return (rendered.instances[row] * numbers).sum(0).to(torch.uint8).numpy()


def write_picture(path: Path, rendered: RenderedScenes, row: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (rendered.images[row].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def voc_colours() -> list[tuple[int, int, int]]:
    """VOC's colour map, number by number, as its development kit makes it."""
    colours = []
    for number in range(256):
        red = green = blue = 0
        left = number
        for bit in range(8):
            red |= (left & 1) << (7 - bit)
            green |= (left >> 1 & 1) << (7 - bit)
            blue |= (left >> 2 & 1) << (7 - bit)
            left >>= 3
        colours.append((red, green, blue))
    return colours


def write_palette(path: Path, numbers: np.ndarray) -> None:
    """An image with a palette, as VOC and DAVIS store masks: numbers that look like colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(numbers.astype(np.uint8)).convert("P")
    picture.putpalette([value for colour in voc_colours() for value in colour])
    picture.save(path)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

"""Real photos to hold generated images against: rendered scenes of the pocket world, or a folder of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffprobe.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.labels.classifiers.classifier import Classifier

AUTO = "auto"


@dataclass(frozen=True)
class Photos:
    """Real images by name, the class of each, how to read them (places -> [images, 3, size, size] in [0, 1]), and what
    they are called in sentences."""

    names: list[str]
    class_indices: list[int]
    read: Callable[[Sequence[int]], Tensor]
    description: str = "real photos"

    def batches(self, size: int) -> Iterator[Tensor]:
        for start in range(0, len(self.names), size):
            yield self.read(range(start, min(start + size, len(self.names))))


def load_photos(
    photos: str | None,
    patterns: Mapping[str, Any],
    data: Any,
    classifier: Classifier,
    classes: set[int],
    count: int,
    image_size: int,
    log: Callable[[str], None],
) -> Photos | None:
    """The photos that `analysis.photos` means, of the `classes` that were asked for; None for none.

    Args:
        photos: 'auto', a folder or a list of images, or None.
        patterns: of `checked_patterns`, for the captions of photos.
        data: the settings of `data`, for what is done with bad files and how pictures become squares.
        count: how many scenes to render.
        log: takes a line for what is odd about a list of images, such as its encoding.

    Raises:
        UserError: they cannot be read, or none is of one of these classes.
    """
    from diffprobe.labels.classifiers.pocket import PocketClassifier

    if photos is None or (photos == AUTO and not isinstance(classifier, PocketClassifier)):
        return None
    if photos == AUTO:
        return _rendered(classifier, classes, count, image_size)
    return _of_folder(Path(photos), patterns, data, classifier, classes, image_size, log)


def _rendered(classifier: Classifier, classes: set[int], count: int, image_size: int) -> Photos:
    """Scenes of one object that no network was trained on; their pictures are what the model learned to make."""
    from diffprobe.labels.classifiers.classifier import class_in_text
    from diffprobe.pocket.render import render
    from diffprobe.pocket.scenes import sample_scene

    scenes, right = [], []
    index = 0
    while len(scenes) < count:
        scene = sample_scene(index, "test", 1)
        found = class_in_text(scene.caption, classifier.classes, {})
        if found in classes:
            scenes.append(scene)
            right.append(found)
        index += 1
    names = [f"scene_{at}" for at in range(count)]
    return Photos(
        names, right, lambda rows: render([scenes[row] for row in rows], image_size).images, "rendered scenes"
    )


def _of_folder(
    place: Path,
    patterns: Mapping[str, Any],
    data: Any,
    classifier: Classifier,
    classes: set[int],
    image_size: int,
    log: Callable[[str], None],
) -> Photos:
    import torch

    from diffprobe.data.images import load_images, read_image, split_readable
    from diffprobe.labels.classifiers.classifier import class_in_text

    if not place.exists():
        raise UserError(f"analysis.photos={place}: there is no such folder or list of images; null goes without")
    files, bad = split_readable(load_images(place, log=log), data.get("on_error", "error"))
    for image in bad:
        log(f"left out {image.name}: {image.reason}")
    shown = [_class_text(file.caption, file.path) for file in files]
    found = [class_in_text(text, classifier.classes, patterns) for text in shown]
    kept = [(file, at) for file, at in zip(files, found, strict=True) if at in classes]
    if not kept:
        raise UserError(
            f"analysis.photos={place}: none of its {len(files)} images is of a class that the prompts name; a photo's "
            f"class is its caption, or the name of its folder, which for the first is {shown[0]!r}"
        )
    if len(kept) < len(files):
        log(f"left out {len(files) - len(kept)} of {len(files)} photos, which are of no class that the prompts name")
    fit = data.get("fit", "stretch")
    return Photos(
        [file.name for file, _ in kept],
        [at for _, at in kept if at is not None],
        lambda rows: torch.stack([read_image(kept[row][0], image_size, fit) for row in rows]),
    )


def _class_text(caption: str, path: Path) -> str:
    return caption or path.parent.name.replace("_", " ")

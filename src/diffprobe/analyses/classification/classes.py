"""From which step on a classifier sees in the decoded image what was asked for, and how sure it is of real photos.

Real photos to hold generated images against: rendered scenes of the pocket world, or a folder of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffprobe.backbone.capture import decode_latents
from diffprobe.backbone.finite import at_step, naming_images
from diffprobe.backbone.trajectory import TrajectoryStep, generate
from diffprobe.errors import UserError
from diffprobe.files import NO_STEP, Step
from diffprobe.labels.classifiers import CONFIDENCE, PROPERTY, STABLE, TOP_1, TOP_5
from diffprobe.probes.score_table import ScoreBlock
from diffprobe.probes.summaries import EmergenceStep
from diffprobe.statistics.differences import median_step
from diffprobe.statistics.intervals import Stratified, stratified_difference

if TYPE_CHECKING:
    from torch import Tensor

    from diffprobe.backbone.load import Backbone
    from diffprobe.data.prompts import Prompt
    from diffprobe.labels.classifiers import Classifier


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
    from diffprobe.labels.pocket import PocketClassifier

    if photos is None or (photos == AUTO and not isinstance(classifier, PocketClassifier)):
        return None
    if photos == AUTO:
        return _rendered(classifier, classes, count, image_size)
    return _of_folder(Path(photos), patterns, data, classifier, classes, image_size, log)


def _rendered(classifier: Classifier, classes: set[int], count: int, image_size: int) -> Photos:
    """Scenes of one object that no network was trained on; their pictures are what the model learned to make."""
    from diffprobe.labels.classifiers import class_in_text
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
    from diffprobe.labels.classifiers import class_in_text

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


TOP = 5
LAYER = "decoded image"  # of the scores
PHOTOGRAPHS = "real"  # the `control` of rows of real photos


@dataclass(frozen=True, slots=True)
class TopRow:
    """top.csv: one of the five classes that an image most looks like after a step; real photos have no step."""

    model: str
    classifier: str
    image: str
    right: str
    step: Step
    timestep: float | None
    rank: int
    label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class StableRow:
    """stable.csv: the first step from which on the answer is right at every step; none where the last is wrong."""

    model: str
    classifier: str
    image: str
    prompt: str
    right: str
    step: Step


@dataclass(frozen=True)
class ClassifierOutputs:
    """What a classifier said.

    Attributes:
        names: of the images.
        class_indices: the place of each image's class in the classifier's `classes`, [images].
        probabilities: [images, steps, classes].
        timesteps: the scheduler's t by step; {NO_STEP: None} of real photos.
        example_images: the first images after every step, [shown, steps, 3, H, W] in [0, 1].
    """

    names: list[str]
    class_indices: np.ndarray
    probabilities: np.ndarray
    timesteps: dict[int, float | None]
    example_images: Tensor

    @property
    def confidence(self) -> np.ndarray:
        """Of the right class, [images, steps]."""
        return np.take_along_axis(self.probabilities, self.class_indices[:, None, None], 2)[..., 0]

    @property
    def rank(self) -> np.ndarray:
        """Of the right class, from 1; a class that is as probable counts as before it. [images, steps]."""
        return (self.probabilities >= self.confidence[..., None]).sum(2)


def classify_steps(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    right: Sequence[int],
    classifier: Classifier,
    *,
    sampling_steps: int,
    steps: Sequence[int],
    batch_size: int,
    shown: int = 0,
    log: Callable[[int, int], None] = lambda done, total: None,
) -> ClassifierOutputs:
    """Makes an image of every prompt and shows the classifier what the latents decode to after each of `steps`.

    Args:
        log: takes how many images are done, and of how many.
    """
    wanted, timesteps = set(steps), {}
    probabilities, films = [], []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        seen, frames = [], []
        with naming_images([prompt.name for prompt in batch]):
            for step, images in _after_each_step(backbone, batch, sampling_steps, wanted):
                timesteps[step.index] = step.timestep
                seen.append(classifier(images))
                frames.append(images[: max(0, shown - start)])
        probabilities.append(torch.stack(seen, 1))
        films.append(torch.stack(frames, 1))
        log(start + len(batch), len(prompts))
    names = [prompt.name for prompt in prompts]
    return ClassifierOutputs(
        names, np.array(right), torch.cat(probabilities).double().numpy(), timesteps, torch.cat(films)
    )


def _after_each_step(
    backbone: Backbone, prompts: Sequence[Prompt], sampling_steps: int, wanted: set[int]
) -> Iterator[tuple[TrajectoryStep, Tensor]]:
    """The wanted steps of a batch, each with what its latents decode to, [images, 3, H, W] in [0, 1]."""
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    for step in generate(backbone, texts, seeds, steps=sampling_steps):
        if step.index in wanted:
            with torch.no_grad(), naming_images((), at_step(step.index, step.timestep)):
                images = decode_latents(backbone, step.latents).cpu()
            yield step, images


def classify_photos(
    names: Sequence[str], photos: Iterator[Tensor], right: Sequence[int], classifier: Classifier
) -> ClassifierOutputs:
    """Shows the classifier real photos, batches of [images, 3, H, W] in [0, 1]."""
    probabilities = torch.cat([classifier(batch) for batch in photos])[:, None].double().numpy()
    return ClassifierOutputs(list(names), np.array(right), probabilities, {NO_STEP: None}, torch.zeros(0, 1, 3, 1, 1))


def class_scores(outputs: ClassifierOutputs, model: str, classifier: str, control: str = "none") -> list[ScoreBlock]:
    """Of every image: confidence in the right class, whether it is the first and among the first five answers and, of
    generated images, whether it is the first from this step on."""
    first = outputs.rank == 1
    metrics = {CONFIDENCE: outputs.confidence, TOP_1: first, TOP_5: outputs.rank <= TOP}
    if control == "none":
        metrics[STABLE] = _stable_from(first)
    moments = list(outputs.timesteps.items())
    return [
        ScoreBlock(
            *(model, LAYER, PROPERTY, classifier, control, "test", metric),
            moments,
            outputs.names,
            values.T.astype(float),
        )
        for metric, values in metrics.items()
    ]


def top_rows(outputs: ClassifierOutputs, model: str, classifier: Classifier) -> list[TopRow]:
    """The five most probable classes of every image at every step, the most probable first."""
    order = np.argsort(-outputs.probabilities, axis=2, kind="stable")[..., :TOP]
    return [
        TopRow(
            model, classifier.name, name, classifier.classes[int(outputs.class_indices[row])], step,
            outputs.timesteps[step], rank + 1, classifier.classes[int(place)],
            float(outputs.probabilities[row, column, place]),
        )
        for row, name in enumerate(outputs.names)
        for column, step in enumerate(outputs.timesteps)
        for rank, place in enumerate(order[row, column])
    ]  # fmt: skip


def stable_rows(
    outputs: ClassifierOutputs, prompts: Sequence[Prompt], model: str, classifier: Classifier
) -> list[StableRow]:
    """The first step of the stable right answer, image by image."""
    steps, stable = list(outputs.timesteps), _stable_from(outputs.rank == 1)
    first = [steps[int(row.argmax())] if row.any() else NO_STEP for row in stable]
    return [
        StableRow(model, classifier.name, prompt.name, prompt.text, classifier.classes[int(right)], step)
        for prompt, right, step in zip(prompts, outputs.class_indices, first, strict=True)
    ]


def half_stable(outputs: ClassifierOutputs, *, level: float = 0.95) -> EmergenceStep:
    """The median over images of the first step of the stable right answer, with its interval (`median_step`).

    Images that are wrong at the last step count as later than all. An end of the interval that lies beyond the last
    step is None, and so is the step where less than half of the images are right in the end. Where the images are too
    few for an interval, both of its ends are None.
    """
    steps, stable = list(outputs.timesteps), _stable_from(outputs.rank == 1)
    first = np.where(stable.any(1), stable.argmax(1), len(steps))
    found = median_step(first, level)
    places = (found.first, found.low, found.high)
    step, low, high = (None if at is None or at == len(steps) else steps[at] for at in places)
    return EmergenceStep(step, low, high, len(stable))


def against_photos(outputs: ClassifierOutputs, photos: ClassifierOutputs, *, level: float = 0.95) -> Stratified:
    """Confidence in generated images at the last step against that in real photos, class by class.

    The classes that both have count the same, whatever the number of their images: `statistics.stratified_difference`.
    """
    generated, real = outputs.confidence[:, -1], photos.confidence[:, -1]
    return stratified_difference(generated, outputs.class_indices, real, photos.class_indices, level)


def _stable_from(right: np.ndarray) -> np.ndarray:
    """[images, steps]: right at this step and at every later one."""
    return np.logical_and.accumulate(right[:, ::-1], 1)[:, ::-1]
